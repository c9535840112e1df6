//! An id of a container: drawn, not chosen.

use std::{fmt, fs::File, io::Read, str::FromStr};

use anyhow::{Context, bail};
use mydocker_core::ContainerName;
use serde::{Deserialize, Serialize};

/// Hex digits in an id.
const DIGITS: usize = 12;

/// A container's id: 12 lower-case hex digits, drawn at random.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// Draws an id from `/dev/urandom`.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; DIGITS / 2];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .context("can't read /dev/urandom")?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What an unnamed container is called.
    pub(crate) fn to_name(&self) -> ContainerName {
        self.0.parse().expect("hex digits make a name")
    }
}

impl FromStr for Id {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != DIGITS || !text.bytes().all(hex) {
            bail!("container id `{text}` is not {DIGITS} hex digits");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Id {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for bad in [
            "",
            "0123456789a",
            "0123456789AB",
            "0123456789abc",
            "../../../../",
        ] {
            assert!(bad.parse::<Id>().is_err(), "{bad:?}");
        }
        let (one, two) = (Id::random().unwrap(), Id::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.as_str().parse::<Id>().unwrap(), one);
        assert_eq!(one.to_name().as_str(), one.as_str());
    }
}
