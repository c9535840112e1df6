//! Which system calls a container may make.
//!
//! A profile is written as Docker writes one: rules that hold for some architectures and capabilities only.
//! [`Seccomp::resolve`] makes of it what an OCI runtime reads.

mod profile;

use std::{fs, io::Read, path::Path};

use anyhow::{Context, bail};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use profile::Profile;
pub(crate) use profile::Reader;

/// The default: what Docker's allows and refuses.
const DEFAULT: &str = include_str!("seccomp/default.json");
/// Longest profile, bytes; Docker's has 13 kB.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// Which profile a container has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// Docker's default.
    #[default]
    Default,
    /// None: every system call is as the kernel has it.
    Unconfined,
    /// One of the user's.
    Profile(Box<Profile>),
}

impl Seccomp {
    /// Reads a profile from a file, and says what is wrong with it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("can't read seccomp profile {}", path.display());
        let file = fs::File::open(path).with_context(what)?;
        let mut text = Vec::new();
        file.take(PROFILE_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .with_context(what)?;
        if text.len() as u64 > PROFILE_BYTES_MAX {
            bail!(
                "seccomp profile {} is longer than {PROFILE_BYTES_MAX} bytes",
                path.display()
            );
        }
        let profile: Profile = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no seccomp profile", path.display()))?;
        let seccomp = Self::Profile(Box::new(profile));
        seccomp
            .resolve(CapabilitySet::empty(), Reader::Standard)
            .with_context(|| format!("seccomp profile {}", path.display()))?;
        Ok(seccomp)
    }

    /// `linux.seccomp` of an OCI bundle, for a container with these capabilities on this machine.
    pub(crate) fn resolve(
        &self,
        capabilities: CapabilitySet,
        reader: Reader,
    ) -> anyhow::Result<Option<Value>> {
        let profile = match self {
            Self::Unconfined => return Ok(None),
            Self::Default => {
                &serde_json::from_str(DEFAULT).context("the default seccomp profile is damaged")?
            }
            Self::Profile(profile) => profile.as_ref(),
        };
        profile.resolve(capabilities, reader).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::privilege;

    fn default(capabilities: CapabilitySet) -> Value {
        let resolved = Seccomp::Default.resolve(capabilities, Reader::Standard);
        resolved.unwrap().unwrap()
    }

    /// What becomes of each call whatever its arguments are.
    fn verdicts(resolved: &Value) -> BTreeMap<String, String> {
        let mut verdicts = BTreeMap::new();
        for rule in resolved["syscalls"].as_array().unwrap() {
            if !rule["args"].is_null() {
                continue;
            }
            let verdict = format!("{} {}", rule["action"], rule["errnoRet"]);
            for name in rule["names"].as_array().unwrap() {
                let before = verdicts.insert(name.as_str().unwrap().to_owned(), verdict.clone());
                assert!(
                    before.as_ref().is_none_or(|before| *before == verdict),
                    "{name} is both {before:?} and {verdict}"
                );
            }
        }
        verdicts
    }

    #[test]
    fn the_default_allows_what_its_capabilities_do() {
        let (allowed, refused) = ("\"SCMP_ACT_ALLOW\" null", "\"SCMP_ACT_ERRNO\" 1");
        let usual = verdicts(&default(privilege::IN_CONTAINERS));
        for name in [
            "read", "openat", "chroot", "ptrace", "seccomp", "prctl", "execve",
        ] {
            assert_eq!(usual[name], allowed, "{name}");
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "init_module",
            "io_uring_setup",
        ] {
            assert_eq!(usual[name], refused, "{name}");
        }
        assert_eq!(usual["clone3"], "\"SCMP_ACT_ERRNO\" 38");
        let admin = verdicts(&default(CapabilitySet::SYS_ADMIN));
        for name in ["mount", "unshare", "setns", "bpf", "clone", "clone3"] {
            assert_eq!(admin[name], allowed, "{name}");
        }
        assert_eq!(admin["chroot"], refused);
        assert_eq!(admin["keyctl"], refused);
    }

    #[test]
    fn no_capabilities_make_two_of_its_rules_disagree() {
        let profile: Profile = serde_json::from_str(DEFAULT).unwrap();
        let agree = |capabilities| {
            verdicts(&profile.resolve(capabilities, Reader::Standard).unwrap());
        };
        let all: Vec<_> = CapabilitySet::all().iter().collect();
        for (index, one) in all.iter().enumerate() {
            for two in &all[index..] {
                agree(*one | *two);
            }
        }
        agree(CapabilitySet::all());
        agree(CapabilitySet::empty());
    }

    #[test]
    fn a_mask_stands_where_its_reader_looks_for_it() {
        let mask = |reader| {
            let resolved = Seccomp::Default.resolve(CapabilitySet::empty(), reader);
            let resolved = resolved.unwrap().unwrap();
            let rules = resolved["syscalls"].as_array().unwrap().clone();
            let clone = rules.iter().find(|rule| rule["names"] == json!(["clone"]));
            let arg = clone.unwrap()["args"][0].clone();
            (arg["value"].as_u64(), arg["valueTwo"].as_u64())
        };
        assert_eq!(mask(Reader::Standard), (Some(0x7e02_0000), Some(0)));
        assert_eq!(mask(Reader::Libcontainer), (Some(0), Some(0x7e02_0000)));
    }

    #[test]
    fn a_bad_profile_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("profile.json");
        for (bad, why) in [
            ("", "EOF"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#, "SCMP_ACT_MAYBE"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","sycalls":[]}"#,
                "sycalls",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#,
                "names no system call",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":[],"archMap":[]}"#,
                "both",
            ),
        ] {
            fs::write(&path, bad).unwrap();
            let said = format!("{:#}", Seccomp::read(&path).unwrap_err());
            assert!(
                said.contains(why) && said.contains("profile.json"),
                "{said}"
            );
        }
        fs::write(&path, DEFAULT).unwrap();
        Seccomp::read(&path).unwrap();
        assert!(
            Seccomp::read(Path::new("/dev/zero")).is_err(),
            "it has no end"
        );
        assert!(Seccomp::read(&dir.path().join("missing")).is_err());
    }
}
