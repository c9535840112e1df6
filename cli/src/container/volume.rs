//! What of the host a container sees.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::spec::check_container_path;

/// A host directory or file seen inside: `HOST:CONTAINER[:ro]`.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Volume {
    /// Absolute path on the host; a directory is made if nothing is there.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Whether it can't be written to from inside.
    pub read_only: bool,
}

impl Volume {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !self.source.is_absolute() {
            bail!(
                "volume source `{}` is not an absolute path: named volumes are not supported, and a \
                 directory below this one is $PWD/{}",
                self.source.display(),
                self.source.display()
            );
        }
        check_container_path("volume target", &self.target)?;
        if self.target == Path::new("/") {
            bail!("volume target `/` would hide the image: name a directory below it");
        }
        Ok(())
    }
}

impl FromStr for Volume {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            bail!("volume `{text}` is not HOST:CONTAINER[:ro]");
        };
        let read_only = match (parts.next(), parts.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => bail!("volume `{text}` is not HOST:CONTAINER[:ro]"),
        };
        let volume = Self {
            source: source.into(),
            target: target.into(),
            read_only,
        };
        volume.check().with_context(|| format!("volume `{text}`"))?;
        Ok(volume)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.display(), self.target.display())?;
        if self.read_only {
            f.write_str(":ro")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let volume: Volume = "/a:/b:ro".parse().unwrap();
        assert_eq!(
            (volume.to_string().as_str(), volume.read_only),
            ("/a:/b:ro", true)
        );
        assert!(!"/a:/b".parse::<Volume>().unwrap().read_only);
        for bad in [
            "",
            "/a",
            "a:/b",
            "/a:b",
            "/a:/b:xx",
            "/a:/b:ro:ro",
            "/a:/../b",
            "/a:/",
            ":/b",
        ] {
            assert!(bad.parse::<Volume>().is_err(), "{bad:?}");
        }
    }
}
