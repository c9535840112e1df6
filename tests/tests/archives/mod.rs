//! Image archives, made of small tars.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// An entry's header and nothing after it. Its path is written as it is: the builder would refuse hostile
/// ones.
pub(crate) fn raw(path: &str, kind: EntryType, size: u64, link: &str) -> Vec<u8> {
    header(path, kind, size, link).as_bytes().to_vec()
}

fn header(path: &str, kind: EntryType, size: u64, link: &str) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..path.len()].copy_from_slice(path.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

/// An archive of entries: path, kind, and content or where a link leads.
pub(crate) fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let entries = entries
        .iter()
        .map(|(path, kind, content)| (*path, *kind, content.as_bytes()));
    archive_of(&entries.collect::<Vec<_>>())
}

fn archive_of(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let (body, link) = if *kind == EntryType::Regular {
            (*content, "")
        } else {
            (&b""[..], std::str::from_utf8(content).unwrap())
        };
        let header = header(path, *kind, body.len() as u64, link);
        builder.append(&header, body).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// An image's configuration.
fn document(config: &Value, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|layer| format!("sha256:{}", sha256(layer)))
        .collect();
    let document = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-02-03T04:05:06.7Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    serde_json::to_vec(&document).unwrap()
}

/// Tags, configuration and layers, lowest first.
pub(crate) type Image<'a> = (&'a [&'a str], Value, &'a [Vec<u8>]);

/// What `docker save` writes: layers that are the same once, and links to them.
pub(crate) fn docker_save(images: &[Image<'_>]) -> Vec<u8> {
    let mut files: Vec<(String, EntryType, Vec<u8>)> = Vec::new();
    let mut manifest = Vec::new();
    for (tags, config, layers) in images {
        let contents: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let text = document(config, &contents);
        let config = format!("{}.json", sha256(&text));
        let mut paths = Vec::new();
        for layer in *layers {
            let path = format!("{}/layer.tar", sha256(layer));
            if files.iter().any(|(known, ..)| *known == path) {
                let link = format!("again-{}/layer.tar", files.len());
                files.push((
                    link.clone(),
                    EntryType::Symlink,
                    format!("../{path}").into_bytes(),
                ));
                paths.push(link);
            } else {
                files.push((path.clone(), EntryType::Regular, layer.clone()));
                paths.push(path);
            }
        }
        files.push((config.clone(), EntryType::Regular, text));
        manifest.push(json!({ "Config": config, "RepoTags": tags, "Layers": paths }));
    }
    let manifest = serde_json::to_vec(&manifest).unwrap();
    files.push(("manifest.json".to_owned(), EntryType::Regular, manifest));
    let files: Vec<_> = files
        .iter()
        .map(|(path, kind, content)| (path.as_str(), *kind, content.as_slice()))
        .collect();
    archive_of(&files)
}

/// An image whose one layer is said to be at `path`, in an archive that has it elsewhere.
pub(crate) fn with_layer_path(layer: &[u8], path: &str) -> Vec<u8> {
    let config = document(&json!({}), &[layer]);
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["bad"], "Layers": [path] }]);
    archive_of(&[
        ("layer.tar", EntryType::Regular, layer),
        ("loop", EntryType::Symlink, b"loop"),
        ("victim", EntryType::Symlink, b"../../../etc/passwd"),
        ("config.json", EntryType::Regular, &config),
        (
            "manifest.json",
            EntryType::Regular,
            &serde_json::to_vec(&manifest).unwrap(),
        ),
    ])
}

/// The same archive with a second list of images.
pub(crate) fn twice(saved: &[u8]) -> Vec<u8> {
    let more = archive(&[("manifest.json", EntryType::Regular, "[]")]);
    [&saved[..saved.len() - 1024], &more].concat()
}

/// An OCI layout of one image in an index of its own, beside one for another platform and something that is
/// no image. Layers are compressed and not.
pub(crate) fn oci_layout(name: &str, config: &Value, layers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    let mut blob = |media_type: &str, bytes: Vec<u8>| {
        let descriptor = json!({
            "mediaType": media_type,
            "digest": format!("sha256:{}", sha256(&bytes)),
            "size": bytes.len(),
        });
        blobs.push(bytes);
        descriptor
    };
    let plain: Vec<&[u8]> = layers.iter().map(|(_, plain)| plain.as_slice()).collect();
    let config = blob(
        "application/vnd.oci.image.config.v1+json",
        document(config, &plain),
    );
    let layers: Vec<Value> = layers
        .iter()
        .map(|(packed, _)| blob("application/vnd.oci.image.layer.v1.tar+any", packed.clone()))
        .collect();
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut image = blob(manifest_type, serde_json::to_vec(&manifest).unwrap());
    let mut other = blob(manifest_type, b"never read".to_vec());
    let mut attestation = blob(manifest_type, b"nor this".to_vec());
    let platform = |architecture: &str, os: &str| json!({ "architecture": architecture, "os": os });
    let ours = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    image["platform"] = platform(ours, "linux");
    other["platform"] = platform("s390x", "linux");
    attestation["platform"] = platform("unknown", "unknown");
    let inner = json!({ "schemaVersion": 2, "manifests": [attestation, other, image] });
    let mut index = blob(
        "application/vnd.oci.image.index.v1+json",
        serde_json::to_vec(&inner).unwrap(),
    );
    index["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": "a-tag-alone",
    });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [index] })).unwrap();
    let mut builder = Builder::new(Vec::new());
    for bytes in &blobs {
        let path = format!("blobs/sha256/{}", sha256(bytes));
        let header = header(&path, EntryType::Regular, bytes.len() as u64, "");
        builder.append(&header, bytes.as_slice()).unwrap();
    }
    for (path, bytes) in [
        ("index.json", &index[..]),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
    ] {
        let header = header(path, EntryType::Regular, bytes.len() as u64, "");
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The bytes with the first `from` changed to `to`, which is as long.
pub(crate) fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes
        .windows(from.len())
        .position(|window| window == from.as_bytes());
    let mut changed = bytes.to_vec();
    changed[at.unwrap()..][..to.len()].copy_from_slice(to.as_bytes());
    changed
}
