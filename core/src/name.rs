//! Names, parsed once and valid ever after.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of anything but an interface, bytes. Room for a CNI container id (64) and its
/// suffixes.
const NAME_BYTES_MAX: usize = 128;
/// Longest interface name, bytes (`IFNAMSIZ` - 1, linux/if.h).
const LINK_NAME_BYTES_MAX: usize = 15;
/// Longest path of a namespace file, bytes.
const NETNS_BYTES_MAX: usize = 255;
/// Longest name of a table or chain, bytes (`NFT_NAME_MAXLEN` - 1, linux/netfilter/nf_tables.h).
const NFT_NAME_BYTES_MAX: usize = 255;
/// Longest key of an interface's setting, bytes; the kernel's longest has some 40.
const SETTING_KEY_BYTES_MAX: usize = 64;

/// Why a string is not the name it was meant to be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{value}` is not a valid {what}: {reason}")]
pub struct NameError {
    /// The kind of name that was wanted.
    pub what: &'static str,
    /// What was given, shortened when it is long.
    pub value: String,
    /// What would be right.
    pub reason: Reason,
}

/// The rule that a name breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// Nothing was given.
    #[error("it must not be empty")]
    Empty,
    /// More bytes than allowed.
    #[error("it must have at most {0} bytes")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("it must start with a letter or digit, followed by letters, digits, `_`, `.` or `-`")]
    Alphabet,
    /// A name that `/proc/sys/net/*/conf` gives to all interfaces.
    #[error("`all` and `default` stand for every interface")]
    EveryLink,
    /// Not a plain absolute path.
    #[error(
        "it must be an absolute path of letters, digits, `_`, `.`, `-`, `+`, `:`, `@` and `/`, without `..`"
    )]
    Path,
    /// Not a word that `nft` takes for a name.
    #[error(
        "it must start with a letter, `_` or `.`, followed by letters, digits, `_`, `.`, `/` or `-`"
    )]
    Nft,
}

impl NameError {
    fn new(what: &'static str, value: &str, reason: Reason) -> Self {
        Self {
            what,
            value: shown(value),
            reason,
        }
    }
}

/// What was given, as a message shows it: 64 characters of it at most, and none of them one that a
/// terminal obeys.
pub(crate) fn shown(value: &str) -> String {
    let start = value.chars().take(64);
    let mut shown: String = start.flat_map(char::escape_debug).collect();
    if value.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether `value` may name something, `what` being the word for it: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`,
/// at most 128 bytes, and so never a path. For those who name things that are no networks.
///
/// # Errors
/// It may not; says why.
pub fn check_name(what: &'static str, value: &str) -> Result<(), NameError> {
    check(what, value, NAME_BYTES_MAX)
}

/// Whether that is the last part of the key of an interface's setting: `[a-z0-9_]+`, at most 64
/// bytes.
pub(crate) fn is_setting_key(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !value.is_empty() && value.len() <= SETTING_KEY_BYTES_MAX && value.bytes().all(inner)
}

/// That a key which is read is the key of a setting: it becomes part of a command and of a path.
pub(crate) fn check_setting_key<E: serde::de::Error>(value: &str) -> Result<(), E> {
    if is_setting_key(value) {
        Ok(())
    } else {
        Err(E::custom("the key of a setting is not [a-z0-9_]+"))
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most `bytes_max` long.
fn check(what: &'static str, value: &str, bytes_max: usize) -> Result<(), NameError> {
    let fail = |reason| Err(NameError::new(what, value, reason));
    let Some(first) = value.bytes().next() else {
        return fail(Reason::Empty);
    };
    if value.len() > bytes_max {
        return fail(Reason::TooLong(bytes_max));
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !first.is_ascii_alphanumeric() || !value.bytes().all(inner) {
        return fail(Reason::Alphabet);
    }
    Ok(())
}

macro_rules! shared_str_name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        shared_str_name!($(#[$doc])* $name, $check, |value: &str| value.into());
    };
    ($(#[$doc:meta])* $name:ident, $check:expr, $spell:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(value: &str) -> Result<Self, NameError> {
                $check(value)?;
                Ok(Self($spell(value)))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(value: String) -> Result<Self, NameError> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

shared_str_name!(
    /// The name of a network: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 128 bytes.
    NetworkName,
    |value| check_name("network name", value)
);
shared_str_name!(
    /// The name of a container, which is what joins networks: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at
    /// most 128 bytes.
    ContainerName,
    |value| check_name("container name", value)
);
shared_str_name!(
    /// A network namespace other than the host's, by the absolute path of its file
    /// (`/run/netns/web`, `/proc/42/ns/net`): an alphabet that needs no quoting in a shell.
    Netns,
    check_netns,
    // One directory by two names (Filesystem Hierarchy Standard 3.0, 5.13); as two it would pass
    // for two namespaces.
    |value: &str| match value.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}").into(),
        None => value.into(),
    }
);

shared_str_name!(
    /// The name of an nf_tables table or chain as `nft` takes it without quotes:
    /// `[a-zA-Z_.][a-zA-Z0-9_./-]*`, at most 255 bytes. Source: `string` in nft's src/scanner.l.
    NftName,
    check_nft
);

fn check_nft(value: &str) -> Result<(), NameError> {
    let fail = |reason| Err(NameError::new("nf_tables name", value, reason));
    let Some(first) = value.bytes().next() else {
        return fail(Reason::Empty);
    };
    if value.len() > NFT_NAME_BYTES_MAX {
        return fail(Reason::TooLong(NFT_NAME_BYTES_MAX));
    }
    let begins = first.is_ascii_alphabetic() || matches!(first, b'_' | b'.');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
    if !begins || !value.bytes().all(plain) {
        return fail(Reason::Nft);
    }
    Ok(())
}

fn check_netns(value: &str) -> Result<(), NameError> {
    let fail = |reason| Err(NameError::new("namespace path", value, reason));
    if value.is_empty() {
        return fail(Reason::Empty);
    }
    if value.len() > NETNS_BYTES_MAX {
        return fail(Reason::TooLong(NETNS_BYTES_MAX));
    }
    let plain = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'+' | b':' | b'@' | b'/')
    };
    let steps_up = value.split('/').any(|part| part == "..");
    if !value.starts_with('/') || value.ends_with('/') || steps_up || !value.bytes().all(plain) {
        return fail(Reason::Path);
    }
    Ok(())
}

impl Netns {
    /// The name under `/run/netns`, where `ip netns` keeps its own; `None` for any other path.
    #[must_use]
    pub fn ip_netns_name(&self) -> Option<&str> {
        let name = self.0.strip_prefix("/run/netns/")?;
        (!name.contains('/')).then_some(name)
    }
}

/// The name of a network interface: 1 to 15 bytes (`IFNAMSIZ`, linux/if.h) of
/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`. Held in place: copying one costs no allocation.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName([u8; LINK_NAME_BYTES_MAX]);

impl LinkName {
    /// The loopback interface that every namespace has.
    pub const LOOPBACK: Self = {
        let mut bytes = [0; LINK_NAME_BYTES_MAX];
        bytes[0] = b'l';
        bytes[1] = b'o';
        Self(bytes)
    };

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self
            .0
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(LINK_NAME_BYTES_MAX);
        core::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// `PREFIX` and as many lower-case hex digits of `hash` as asked, most significant first.
    /// Prefix and digits together must fit an interface name.
    pub(crate) fn derived(prefix: &str, hash: u64, digits: usize) -> Self {
        let mut bytes = [0; LINK_NAME_BYTES_MAX];
        bytes[..prefix.len()].copy_from_slice(prefix.as_bytes());
        for (i, byte) in bytes[prefix.len()..prefix.len() + digits]
            .iter_mut()
            .enumerate()
        {
            let nibble = (hash >> (60 - 4 * i)) & 0xf;
            *byte = b"0123456789abcdef"[usize::from(nibble as u8)];
        }
        Self(bytes)
    }
}

impl FromStr for LinkName {
    type Err = NameError;

    fn from_str(value: &str) -> Result<Self, NameError> {
        check("interface name", value, LINK_NAME_BYTES_MAX)?;
        if matches!(value, "all" | "default") {
            return Err(NameError::new("interface name", value, Reason::EveryLink));
        }
        let mut bytes = [0; LINK_NAME_BYTES_MAX];
        bytes[..value.len()].copy_from_slice(value.as_bytes());
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for LinkName {
    type Error = NameError;

    fn try_from(value: String) -> Result<Self, NameError> {
        value.parse()
    }
}

/// Whatever an interface can be called, a container can.
impl From<LinkName> for ContainerName {
    fn from(name: LinkName) -> Self {
        Self(name.as_str().into())
    }
}

impl From<LinkName> for String {
    fn from(name: LinkName) -> Self {
        name.as_str().to_string()
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "0", "test-bridge", "a.b_c-9", &"x".repeat(128)] {
            assert_eq!(good.parse::<NetworkName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            ".",
            "..",
            "../x",
            "a b",
            "a/b",
            "ä",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "../../x".parse::<NetworkName>().unwrap_err().to_string(),
            "`../../x` is not a valid network name: it must start with a letter or digit, \
             followed by letters, digits, `_`, `.` or `-`"
        );
    }

    #[test]
    fn link_names_fit_the_kernel() {
        assert_eq!(
            "mdv0123456789ab".parse::<LinkName>().unwrap().as_str(),
            "mdv0123456789ab"
        );
        for bad in ["sixteen-bytes-xx", "all", "default", ""] {
            assert!(bad.parse::<LinkName>().is_err(), "{bad:?}");
        }
        assert_eq!(
            LinkName::derived("mdv", 0xfedc_ba98_7654_3210, 11).as_str(),
            "mdvfedcba98765"
        );
        assert_eq!(format!("{:?}", LinkName::LOOPBACK), "\"lo\"");
    }

    #[test]
    fn names_of_chains_need_no_quotes() {
        for good in ["FORWARD", "filter_FORWARD", "DOCKER-USER", ".a/b"] {
            assert_eq!(good.parse::<NftName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "1a", "a b", "a'b", "a;b", "a\n", "ä", "a$(b)"] {
            assert!(bad.parse::<NftName>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(256).parse::<NftName>().is_err());
    }

    #[test]
    fn namespace_paths_are_plain_and_absolute() {
        assert_eq!(
            "/run/netns/web".parse::<Netns>().unwrap().ip_netns_name(),
            Some("web")
        );
        assert_eq!(
            "/proc/4/ns/net".parse::<Netns>().unwrap().ip_netns_name(),
            None
        );
        let spelled: Netns = "/var/run/netns/web".parse().unwrap();
        assert_eq!(spelled.as_str(), "/run/netns/web");
        for bad in ["", "web", "/a/../b", "/a b", "/a'b", "/a$(b)", "/a/"] {
            assert!(bad.parse::<Netns>().is_err(), "{bad:?}");
        }
    }
}
