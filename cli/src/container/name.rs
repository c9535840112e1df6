//! How containers are called: a name people choose, an id we draw.

use std::{fmt, fs::File, io::Read, str::FromStr};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// Longest name of a container or image, bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Hex digits in an id.
const ID_DIGITS: usize = 12;

/// Whether `text` follows `[a-zA-Z0-9][a-zA-Z0-9_.-]*` and is short enough; else, what is wrong.
pub(crate) fn check_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(format!(
            "has {} bytes, more than {NAME_BYTES_MAX}",
            text.len()
        ));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("doesn't start with a letter or a digit".to_owned());
    }
    match text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c))
    {
        Some(bad) => Err(format!(
            "contains {bad:?}: only letters, digits and `_.-` may"
        )),
        None => Ok(()),
    }
}

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 128 bytes, unique among containers.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A container's id: 12 lower-case hex digits, drawn at random.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Id {
    /// Draws an id from `/dev/urandom`.
    pub fn random() -> anyhow::Result<Self> {
        let mut bytes = [0; ID_DIGITS / 2];
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
}

impl FromStr for Name {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Err(reason) = check_name(text) {
            bail!("container name `{text}` {reason}");
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Id {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != ID_DIGITS || !text.bytes().all(hex) {
            bail!("container id `{text}` is not {ID_DIGITS} hex digits");
        }
        Ok(Self(text.to_owned()))
    }
}

/// An unnamed container is called by its id.
impl From<Id> for Name {
    fn from(id: Id) -> Self {
        Self(id.0)
    }
}

macro_rules! text_type {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = anyhow::Error;

            fn try_from(text: String) -> anyhow::Result<Self> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(text: $type) -> Self {
                text.0
            }
        }
    };
}

text_type!(Name);
text_type!(Id);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_checked() {
        for good in ["web", "0", "a_b.c-d", &"x".repeat(128)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".hidden",
            "a/b",
            "..",
            "a b",
            "a\n",
            "é",
            &"x".repeat(129),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
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
    }
}
