//! What a container may use.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// What a container may use; nothing set is no limit.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Limits {
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time, percent of one processor.
    pub cpu_percent: Option<u32>,
    /// Processors, as `0-2,4`.
    pub cpuset: Option<String>,
}

impl Limits {
    /// Below this the kernel can't even start a program.
    const MEMORY_BYTES_MIN: u64 = 4 << 20;
    /// The kernel's shortest share is 1 ms of a period of 100 ms; its longest is bounded by our machines.
    const CPU_PERCENT_MAX: u32 = 100 * 1024;

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(bytes) = self.memory_bytes
            && !(Self::MEMORY_BYTES_MIN..=i64::MAX.cast_unsigned()).contains(&bytes)
        {
            bail!("a memory limit of {bytes} bytes is out of range: give 4m or more");
        }
        if let Some(percent) = self.cpu_percent
            && !(1..=Self::CPU_PERCENT_MAX).contains(&percent)
        {
            bail!(
                "a processor limit of {percent} % is out of range: give 1 to {}",
                Self::CPU_PERCENT_MAX
            );
        }
        if let Some(cpuset) = &self.cpuset {
            check_cpuset(cpuset)?;
        }
        Ok(())
    }
}

/// A memory size in bytes, as `100m`: bytes without a unit, else `b`, `k`, `m`, `g` (powers of 1024).
pub fn parse_memory(text: &str) -> anyhow::Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => bail!("memory size `{text}` has no unit of b, k, m or g"),
    };
    let count: u64 = digits
        .parse()
        .with_context(|| format!("memory size `{text}` is not like 100m"))?;
    count
        .checked_mul(unit)
        .with_context(|| format!("memory size `{text}` is too large"))
}

fn check_cpuset(text: &str) -> anyhow::Result<()> {
    let valid = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(f), Ok(l)) if f <= l)
        }
        None => part.parse::<u16>().is_ok(),
    };
    if !text.split(',').all(valid) {
        bail!("processor list `{text}` is not like 0-2,4");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() {
        for (text, bytes) in [
            ("100m", 100 << 20),
            ("1G", 1 << 30),
            ("4096", 4096),
            ("8kb", 8192),
        ] {
            assert_eq!(parse_memory(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "-1", "1.5g", "1x", "99999999999g", "1 m"] {
            assert!(parse_memory(bad).is_err(), "{bad:?}");
        }
    }
}
