//! The name of an image, parsed once and a safe file name after.

use std::{fmt, str::FromStr};

use mydocker_core::{NameError, check_name};
use serde::{Deserialize, Serialize};

/// An image's name: what may name a container may name an image, so it is never a path.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for ImageName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        check_name("image name", &text)?;
        Ok(Self(text))
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_paths() {
        assert_eq!(
            "alpine-3.19".parse::<ImageName>().unwrap().as_str(),
            "alpine-3.19"
        );
        for bad in ["", ".", "..", "../x", "a/b", "a:b", "a\0"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        let error = "a:b".parse::<ImageName>().unwrap_err().to_string();
        assert!(error.contains("is not a valid image name"), "{error}");
    }
}
