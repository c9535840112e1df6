//! What an image says about the containers that are made from it.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::Digest;

/// Most variables, arguments, ports or labels of one image.
const LIST_LEN_MAX: usize = 4096;

/// How containers run unless told otherwise: the part of an OCI image configuration that is honoured,
/// called as there.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// Variables, `KEY=VALUE`.
    #[serde(deserialize_with = "or_null")]
    pub env: Vec<String>,
    /// What goes before the command.
    #[serde(deserialize_with = "or_null")]
    pub entrypoint: Vec<String>,
    /// The command, or its arguments if there is an entry point.
    #[serde(deserialize_with = "or_null")]
    pub cmd: Vec<String>,
    /// Where the program starts; empty for `/`.
    #[serde(deserialize_with = "or_null")]
    pub working_dir: String,
    /// `USER[:GROUP]`, by name or number; empty for root.
    #[serde(deserialize_with = "or_null")]
    pub user: String,
    /// Ports that the program listens on, as `80/tcp`.
    #[serde(deserialize_with = "or_null")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Anything else.
    #[serde(deserialize_with = "or_null")]
    pub labels: BTreeMap<String, String>,
}

/// What the format has where a set would do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Empty {}

/// What is left out is written as `null` by some.
fn or_null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl ImageConfig {
    /// Says what of it no container could have.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (what, len) in [
            ("Env", self.env.len()),
            ("Entrypoint", self.entrypoint.len()),
            ("Cmd", self.cmd.len()),
            ("ExposedPorts", self.exposed_ports.len()),
            ("Labels", self.labels.len()),
        ] {
            if len > LIST_LEN_MAX {
                bail!("{what} has {len} items, which are more than {LIST_LEN_MAX}");
            }
        }
        let texts = self.env.iter().chain(&self.entrypoint).chain(&self.cmd);
        for text in texts.chain([&self.working_dir, &self.user]) {
            if text.contains('\0') {
                bail!("{text:?} contains a NUL byte");
            }
        }
        self.exposed_ports
            .keys()
            .try_for_each(|port| check_port(port))
    }
}

/// `PORT[-PORT][/PROTOCOL]`
fn check_port(text: &str) -> anyhow::Result<()> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let valid = matches!(
        (first.parse::<u16>(), last.parse::<u16>()),
        (Ok(first), Ok(last)) if first > 0 && first <= last
    );
    if !valid || !["tcp", "udp", "sctp"].contains(&protocol) {
        bail!("exposed port {text:?} is not like 80/tcp");
    }
    Ok(())
}

/// The part of an OCI image configuration that anybody here looks at.
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<ImageConfig>,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Document {
    pub(super) fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let document: Self =
            serde_json::from_slice(text).context("it is not the configuration of an image")?;
        if let Some(os) = document.os.as_deref()
            && !["", "linux"].contains(&os)
        {
            bail!("it is of an image for {os:?}, and containers here run Linux");
        }
        if let Some(config) = &document.config {
            config.check()?;
        }
        Ok(document)
    }

    /// The layers as they are uncompressed, lowest first.
    pub(super) fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }

    /// When the image was made, seconds since 1970, if it says so.
    pub(super) fn created_unix_s(&self) -> Option<u64> {
        let created = humantime::parse_rfc3339_weak(self.created.as_deref()?).ok()?;
        let since = created.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    pub(super) fn into_config(self) -> ImageConfig {
        self.config.unwrap_or_default()
    }
}

/// The OCI image configuration of an image that is made here. Its digest is the image's id.
pub(super) fn document(
    config: &ImageConfig,
    diff_ids: &[Digest],
    created_unix_s: u64,
) -> anyhow::Result<Vec<u8>> {
    let created = std::time::UNIX_EPOCH + std::time::Duration::from_secs(created_unix_s);
    let document = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": humantime::format_rfc3339_seconds(created).to_string(),
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    serde_json::to_vec(&document).context("can't write an image's configuration")
}

/// This machine's architecture, as Go and so OCI calls it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn parse(config: &str) -> anyhow::Result<ImageConfig> {
        let text = format!(r#"{{"config":{config},"rootfs":{{"diff_ids":["{ZERO}"]}}}}"#);
        Document::parse(text.as_bytes()).map(Document::into_config)
    }

    #[test]
    fn what_is_left_out_is_empty() {
        for nothing in [
            "null",
            "{}",
            r#"{"Env":null,"ExposedPorts":null,"Volumes":{"/x":{}}}"#,
        ] {
            assert_eq!(parse(nothing).unwrap(), ImageConfig::default(), "{nothing}");
        }
        let config = parse(r#"{"Env":["A=1"],"Cmd":["sh"],"ExposedPorts":{"80/tcp":{}}}"#).unwrap();
        assert_eq!(
            (config.env, config.cmd),
            (vec!["A=1".into()], vec!["sh".into()])
        );
        assert!(config.exposed_ports.contains_key("80/tcp"));
    }

    #[test]
    fn what_no_container_could_have_is_refused() {
        for bad in [
            r#"{"ExposedPorts":{"0/tcp":{}}}"#,
            r#"{"ExposedPorts":{"80/../x":{}}}"#,
            r#"{"ExposedPorts":{"9-8/udp":{}}}"#,
            r#"{"Cmd":["a\u0000"]}"#,
            r#"{"Cmd":"sh"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "no JSON",
            "[]",
            "{}",
            r#"{"os":"windows","rootfs":{"diff_ids":[]}}"#,
        ] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ours_reads_back() {
        let config = ImageConfig {
            env: vec!["A=1".into()],
            ..ImageConfig::default()
        };
        let layer = Digest::of(b"x");
        let text = document(&config, &[layer], 1_700_000_000).unwrap();
        let read = Document::parse(&text).unwrap();
        assert_eq!(read.diff_ids(), [layer]);
        assert_eq!(read.created_unix_s(), Some(1_700_000_000));
        assert_eq!(read.into_config(), config);
    }
}
