//! The name of an image, parsed once and a safe file name after.

use std::{fmt, str::FromStr};

use mydocker_core::check_name;
use serde::{Deserialize, Serialize};

/// Longest name of a file, bytes: that of an image's manifest has three for each `/` and `:`.
const FILE_NAME_BYTES_MAX: usize = 255;
/// Longest tag, bytes, as registries have it.
const TAG_BYTES_MAX: usize = 128;
/// The tag that goes without saying.
const DEFAULT_TAG: &str = "latest";
/// Where names are from that don't say where from.
const DEFAULT_REGISTRIES: [&str; 2] = ["docker.io/", "index.docker.io/"];
/// Whose the images of that registry are that nobody owns.
const DEFAULT_OWNER: &str = "library/";

/// An image's name, as Docker has them: `busybox`, `busybox:1.36`, `ghcr.io/owner/name:tag`.
///
/// What goes without saying is left out, so that one image has one name: `busybox:latest` and
/// `docker.io/library/busybox` are `busybox`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

/// A text that names no image.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{text}` is not a valid image name: {reason}")]
pub struct ImageNameError {
    text: String,
    reason: String,
}

impl ImageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a container may be called after it: neither registry nor tag.
    pub fn base(&self) -> &str {
        let path = split_tag(&self.0).0;
        path.rsplit('/').next().unwrap_or(path)
    }

    /// What its archive is called, if there can be one: no file's name has a `/`, and one with a `:`
    /// would be one more way to say the same.
    pub(super) fn archive(&self) -> Option<String> {
        (!self.0.contains(['/', ':'])).then(|| format!("{}.tar", self.0))
    }

    /// What its manifest is called.
    pub(super) fn file(&self) -> String {
        let escaped = self.0.replace('/', "%2F").replace(':', "%3A");
        format!("{escaped}{MANIFEST}")
    }

    /// The image whose manifest has this name; none if it is no manifest's.
    pub(super) fn of_file(file: &str) -> Option<Self> {
        let escaped = file.strip_suffix(MANIFEST)?;
        let name: Self = escaped
            .replace("%2F", "/")
            .replace("%3A", ":")
            .parse()
            .ok()?;
        (name.file() == file).then_some(name)
    }
}

/// What the name of a manifest ends in.
const MANIFEST: &str = ".json";

/// Path and tag: a `:` before the last `/` is that of a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        Some(_) | None => (text, None),
    }
}

/// `[HOST[:PORT]/]PART[/PART …]`
fn check_path(path: &str) -> Result<(), String> {
    let parts: Vec<&str> = path.split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        let host = match part.split_once(':') {
            Some((host, port)) if index == 0 && parts.len() > 1 => {
                if port.parse::<u16>().is_err() {
                    return Err("what follows the host's `:` is not a port".to_owned());
                }
                host
            }
            Some(_) | None => part,
        };
        check_name("image name", host).map_err(|_| {
            "it is like busybox, busybox:1.36 or ghcr.io/owner/name:tag, of letters, digits, `_`, `.` \
             and `-`"
                .to_owned()
        })?;
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let valid = tag.bytes().all(inner) && !tag.starts_with(['.', '-']) && !tag.is_empty();
    if valid && tag.len() <= TAG_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "a tag is 1 to {TAG_BYTES_MAX} letters, digits, `_`, `.` and `-`"
    ))
}

fn normalized(text: &str) -> Result<String, String> {
    let escaped = text.len() + 2 * text.matches(['/', ':']).count();
    if escaped + MANIFEST.len() > FILE_NAME_BYTES_MAX {
        return Err("it is too long".to_owned());
    }
    if text.contains('@') {
        return Err(
            "images have names here, and no digests: leave out the `@` and what follows".to_owned(),
        );
    }
    let (mut path, tag) = split_tag(text);
    check_path(path)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    while let Some(rest) = DEFAULT_REGISTRIES
        .iter()
        .find_map(|host| path.strip_prefix(host))
    {
        path = rest;
    }
    if let Some(rest) = path.strip_prefix(DEFAULT_OWNER)
        && !rest.contains('/')
    {
        path = rest;
    }
    Ok(match tag {
        None | Some(DEFAULT_TAG) => path.to_owned(),
        Some(tag) => format!("{path}:{tag}"),
    })
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        normalized(text).map(Self).map_err(|reason| ImageNameError {
            // However long the text, the message is not.
            text: text
                .chars()
                .take(80)
                .flat_map(char::escape_default)
                .collect(),
            reason,
        })
    }
}

impl TryFrom<String> for ImageName {
    type Error = ImageNameError;

    fn try_from(text: String) -> Result<Self, ImageNameError> {
        text.parse()
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

    fn name(text: &str) -> ImageName {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_goes_without_saying_is_left_out() {
        for (text, short) in [
            ("alpine-3.19", "alpine-3.19"),
            ("busybox:latest", "busybox"),
            ("docker.io/library/busybox:latest", "busybox"),
            ("library/busybox:1.36", "busybox:1.36"),
            ("docker.io/docker.io/a/b", "a/b"),
            ("ghcr.io/x/y:1", "ghcr.io/x/y:1"),
            ("localhost:5000/x", "localhost:5000/x"),
            ("localhost:5000/x:latest", "localhost:5000/x"),
        ] {
            assert_eq!(name(text).as_str(), short, "{text}");
            assert_eq!(name(short).as_str(), short, "{text}");
        }
    }

    #[test]
    fn names_are_never_paths() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/../b",
            "/a",
            "a/",
            "a//b",
            "a:",
            ":a",
            "a:b:c",
            "a\0",
            "a b",
            "a:-x",
            "a:.",
            "a:b/c",
            "a%2Fb",
            "-a",
            ".a",
            "a/b:5/c",
            "host:99999/x",
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        let error = "a:b:c".parse::<ImageName>().unwrap_err().to_string();
        assert!(error.contains("is not a valid image name"), "{error}");
        let error = "a@sha256:00".parse::<ImageName>().unwrap_err().to_string();
        assert!(error.contains("no digests"), "{error}");
        let long = "a/".repeat(100) + "a";
        assert!(long.parse::<ImageName>().is_err());
    }

    #[test]
    fn files_are_called_after_images() {
        for text in ["busybox", "a.b:1", "localhost:5000/x/y:1"] {
            let name = name(text);
            assert!(!name.file().contains('/'), "{}", name.file());
            assert_eq!(ImageName::of_file(&name.file()), Some(name));
        }
        let long = name(&("a/".repeat(60) + "a"));
        assert!(long.file().len() <= FILE_NAME_BYTES_MAX);
        for bad in [
            "lock",
            ".new",
            "busybox%3Alatest.json",
            "a%2F..json",
            "..json",
            ".json",
        ] {
            assert_eq!(ImageName::of_file(bad), None, "{bad}");
        }
        assert_eq!(
            name("busybox:latest").archive().as_deref(),
            Some("busybox.tar")
        );
        assert_eq!(name("busybox:1").archive(), None);
        assert_eq!(name("ghcr.io/x/y:1").base(), "y");
    }
}
