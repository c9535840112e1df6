//! What is in an image archive, and where, so that its parts can be read in any order.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use tar::Archive;

/// Most files of an image archive: each layer has a few.
const MEMBERS_MAX: usize = 10_000;
/// Longest JSON text in one, bytes.
const JSON_BYTES_MAX: u64 = 8 << 20;
/// How many links are followed from one to the next.
const LINKS_MAX: u32 = 8;
/// What only root filesystems have at the top.
const ROOT_DIRECTORIES: [&str; 3] = ["bin", "etc", "usr"];

/// The files of an uncompressed tar archive that is read here and there.
#[derive(Debug)]
pub(super) struct Members<'f> {
    file: &'f File,
    members: BTreeMap<String, Member>,
}

#[derive(Clone, Debug)]
enum Member {
    File {
        offset: u64,
        bytes: u64,
    },
    /// Old versions of `docker save` write a layer once, and links to it.
    Link(String),
}

/// The text of a path, without what changes nothing; none if it leads out of where it starts.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

impl<'f> Members<'f> {
    /// The files of an image archive; none if it is that of a root filesystem.
    pub(super) fn scan(file: &'f File) -> anyhow::Result<Option<Self>> {
        let mut source = file;
        let len = source.metadata()?.len();
        source.rewind()?;
        let mut members = BTreeMap::new();
        let mut archive = Archive::new(source);
        for entry in archive.entries_with_seek().context(NO_TAR)? {
            let entry = entry.context(NO_TAR)?;
            let path = entry.path()?.into_owned();
            let top = path.components().find_map(|part| match part {
                Component::Normal(part) => part.to_str(),
                Component::RootDir
                | Component::CurDir
                | Component::ParentDir
                | Component::Prefix(_) => None,
            });
            if top.is_some_and(|top| ROOT_DIRECTORIES.contains(&top)) {
                return Ok(None);
            }
            let Some(name) = normal(&path) else {
                // Nobody asks for it, and a root filesystem is not unpacked with it.
                continue;
            };
            let kind = entry.header().entry_type();
            let member = if kind.is_file() || kind.is_contiguous() {
                let (offset, bytes) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(bytes).is_none_or(|end| end > len) {
                    bail!("entry `{}` of {bytes} bytes is cut short", shown(&name));
                }
                Member::File { offset, bytes }
            } else if kind.is_symlink() {
                let target = entry.link_name()?.unwrap_or_default();
                let parent = path.parent().unwrap_or(Path::new(""));
                match normal(&parent.join(target)) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            } else {
                continue;
            };
            if members.insert(name.clone(), member).is_some() && is_ours(&name) {
                bail!("entry `{}` is there twice", shown(&name));
            }
            if members.len() > MEMBERS_MAX && !members.keys().any(|name| is_ours(name)) {
                // So many files and no list of layers: it is read again, as a root filesystem.
                return Ok(None);
            }
            if members.len() > MEMBERS_MAX {
                bail!("it is an archive of layers and has more than {MEMBERS_MAX} files");
            }
        }
        let known = members.contains_key(MANIFEST) || members.contains_key(OCI_LAYOUT);
        Ok(known.then_some(Self { file, members }))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.members.contains_key(path)
    }

    /// Reads a file of it; `what` it should be, for the message.
    pub(super) fn open(&self, what: &str, path: &str) -> anyhow::Result<Part<'f>> {
        let mut at = normal(Path::new(path));
        for _ in 0..LINKS_MAX {
            match at.as_ref().and_then(|at| self.members.get(at)) {
                Some(Member::File { offset, bytes }) => {
                    return Ok(Part {
                        file: self.file,
                        offset: *offset,
                        left: *bytes,
                    });
                }
                Some(Member::Link(target)) => at = Some(target.clone()),
                None => bail!("{what} `{}` is not in the archive", shown(path)),
            }
        }
        bail!("{what} `{}` is a link to links without end", shown(path))
    }

    /// All of a file that is not long.
    pub(super) fn read(&self, what: &str, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut part = self.open(what, path)?;
        if part.left > JSON_BYTES_MAX {
            bail!(
                "{what} `{}` of {} bytes is longer than {JSON_BYTES_MAX}",
                shown(path),
                part.left
            );
        }
        let mut text = Vec::new();
        part.read_to_end(&mut text)
            .with_context(|| format!("can't read {what} `{}`", shown(path)))?;
        Ok(text)
    }

    /// A file that is JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, what: &str, path: &str) -> anyhow::Result<T> {
        let text = self.read(what, path)?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{what} `{}` is not as it should be", shown(path)))
    }
}

/// What is said of an archive that can't be read.
pub(super) const NO_TAR: &str =
    "it is no tar archive, plain or compressed with gzip or zstd, or it is cut short";
/// The list of images that `docker save` writes.
pub(super) const MANIFEST: &str = "manifest.json";
/// What says that an archive is an OCI layout.
pub(super) const OCI_LAYOUT: &str = "oci-layout";

/// Whether images are found by this file, so that two of that name would be two answers.
fn is_ours(name: &str) -> bool {
    [MANIFEST, OCI_LAYOUT, "index.json"].contains(&name) || name.starts_with("blobs/")
}

/// Text from an archive, fit for a message.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(200)
        .flat_map(char::escape_default)
        .collect()
}

/// One file of an archive.
#[derive(Debug)]
pub(super) struct Part<'f> {
    file: &'f File,
    offset: u64,
    left: u64,
}

impl Part<'_> {
    /// How long it is, as far as it has not been read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let max = usize::try_from(self.left).unwrap_or(usize::MAX);
        let max = max.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..max], self.offset)?;
        if read == 0 && max > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let read_bytes = u64::try_from(read).unwrap_or(u64::MAX);
        self.offset += read_bytes;
        self.left -= read_bytes;
        Ok(read)
    }
}

/// The path of the blob with this digest in an OCI layout.
pub(super) fn blob(digest: &super::Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}
