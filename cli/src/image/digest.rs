//! SHA-256 digests: what a layer or an image is called, since nothing else has the same.

use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

use anyhow::bail;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Hex digits that people are shown.
const SHORT_DIGITS: usize = 12;

/// The SHA-256 of some content, printed as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its 64 hex digits, which are a safe file name.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its first 12 hex digits.
    pub fn short(&self) -> String {
        self.hex()[..SHORT_DIGITS].to_owned()
    }

    /// From 64 lower-case hex digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text.strip_prefix("sha256:").and_then(Self::from_hex) {
            Some(digest) => Ok(digest),
            None => {
                let shown: String = text.chars().take(100).collect();
                bail!("digest `{shown}` is not `sha256:` and 64 hex digits")
            }
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("sha256:{}", self.hex()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads on, and keeps the digest and the length of what was read.
#[derive(Debug)]
pub(super) struct Hashing<R> {
    inner: R,
    sha256: Sha256,
    read: Content,
}

/// What some content was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    /// How many bytes at its end are zero.
    pub(super) zeros: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            sha256: Sha256::new(),
            read: Content {
                digest: Digest([0; 32]),
                bytes: 0,
                zeros: 0,
            },
        }
    }

    /// Reads what nobody has read, and says what all of it was.
    pub(super) fn finish(mut self) -> io::Result<Content> {
        io::copy(&mut self, &mut io::sink())?;
        let digest = Digest(self.sha256.finalize().into());
        Ok(Content {
            digest,
            ..self.read
        })
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..read]);
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        let zeros = buffer[..read].iter().rev().take_while(|byte| **byte == 0);
        let zeros = zeros.count();
        self.read.bytes += count(read);
        self.read.zeros = if zeros == read {
            self.read.zeros + count(zeros)
        } else {
            count(zeros)
        };
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_those_of_everybody() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        let mut hashing = Hashing::new(&b"hello"[..]);
        hashing.read_exact(&mut [0; 2]).unwrap();
        let read = hashing.finish().unwrap();
        assert_eq!((read.digest, read.bytes), (Digest::of(b"hello"), 5));
    }

    #[test]
    fn zeros_at_the_end_are_counted() {
        for (content, zeros) in [
            (&b""[..], 0),
            (b"a\0\0b", 0),
            (b"\0a\0\0\0", 3),
            (b"\0\0", 2),
        ] {
            for (one, two) in (0..=content.len()).map(|at| content.split_at(at)) {
                let read = Hashing::new(one.chain(two)).finish().unwrap();
                assert_eq!(read.zeros, zeros, "{one:?} {two:?}");
            }
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let upper = EMPTY.to_uppercase();
        for bad in [
            "",
            "sha256:",
            &EMPTY[7..],
            &EMPTY[..70],
            &upper,
            "sha512:00",
            "sha256:../..",
        ] {
            let error = bad.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains("is not `sha256:`"), "{error}");
        }
    }
}
