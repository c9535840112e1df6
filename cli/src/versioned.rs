//! Files of ours that are JSON and say their format.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The text of a file; messages call it `what`.
pub(crate) fn to_json(value: &impl Serialize, what: &str) -> anyhow::Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).with_context(|| format!("can't write {what}"))?;
    text.push(b'\n');
    Ok(text)
}

/// What the text of a file says, if it has this format.
pub(crate) fn from_json<T: DeserializeOwned>(text: &[u8], known: u32) -> anyhow::Result<T> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(text)?;
    if format != known {
        bail!("it has format {format}, and this version of mydocker reads format {known}");
    }
    Ok(serde_json::from_slice(text)?)
}
