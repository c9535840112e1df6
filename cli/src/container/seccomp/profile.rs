//! What a seccomp profile says.

use std::{env::consts::ARCH, fs};

use anyhow::{Context, bail};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::privilege;

/// A profile as Docker reads it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    default_action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architectures: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arch_map: Option<Vec<Architecture>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<String>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

/// An architecture, and those whose programs its kernel runs as well.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

/// What becomes of some system calls.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    /// As one was named before there were `names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Condition>,
    #[serde(default)]
    excludes: Option<Condition>,
}

/// When a rule holds, or does not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// A comparison with an argument.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

/// `SCMP_ACT_NOTIFY` is none of them: nobody would listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Who reads the profile: what a masked comparison's two values mean differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reader {
    /// The mask comes first, as in libseccomp.
    Standard,
    /// libcontainer 0.7 has them the other way round.
    Libcontainer,
}

impl Profile {
    pub(super) fn resolve(
        &self,
        capabilities: CapabilitySet,
        reader: Reader,
    ) -> anyhow::Result<Value> {
        let have = privilege::names(capabilities);
        let mut syscalls = Vec::new();
        for rule in self.syscalls.iter().flatten() {
            let names = rule.names()?;
            if rule.holds(&have)? {
                syscalls.push(rule.resolve(names, reader));
            }
        }
        let mut resolved = json!({
            "defaultAction": self.default_action,
            "architectures": self.architectures()?,
            "syscalls": syscalls,
        });
        if let Some(errno) = self.default_errno_ret {
            resolved["defaultErrnoRet"] = json!(errno);
        }
        if let Some(flags) = &self.flags {
            resolved["flags"] = json!(flags);
        }
        Ok(resolved)
    }

    fn architectures(&self) -> anyhow::Result<Vec<String>> {
        let map = match (&self.architectures, &self.arch_map) {
            (Some(_), Some(_)) => bail!("it has both `architectures` and `archMap`"),
            (Some(named), None) => return Ok(named.clone()),
            (None, map) => map.iter().flatten(),
        };
        let ours = map.filter(|one| one.architecture == native().0);
        Ok(ours
            .flat_map(|one| {
                let others = one.sub_architectures.iter().flatten();
                std::iter::once(&one.architecture).chain(others).cloned()
            })
            .collect())
    }
}

impl Rule {
    fn names(&self) -> anyhow::Result<Vec<&String>> {
        match (&self.name, self.names.is_empty()) {
            (Some(_), false) => bail!("a rule has both `name` and `names`"),
            (None, true) => bail!("a rule names no system call"),
            (name, _) => Ok(name.iter().chain(&self.names).collect()),
        }
    }

    fn holds(&self, have: &[String]) -> anyhow::Result<bool> {
        let here = native().1;
        if let Some(needed) = &self.includes {
            let caps = needed.caps.iter().all(|cap| have.contains(cap));
            let arch = needed.arches.is_empty() || needed.arches.iter().any(|arch| arch == here);
            if !caps || !arch || !kernel_is_at_least(needed.min_kernel.as_deref())? {
                return Ok(false);
            }
        }
        let Some(excluded) = &self.excludes else {
            return Ok(true);
        };
        let caps = excluded.caps.iter().any(|cap| have.contains(cap));
        let arch = excluded.arches.iter().any(|arch| arch == here);
        let newer =
            excluded.min_kernel.is_some() && kernel_is_at_least(excluded.min_kernel.as_deref())?;
        Ok(!(caps || arch || newer))
    }

    fn resolve(&self, names: Vec<&String>, reader: Reader) -> Value {
        let mut rule = json!({ "names": names, "action": self.action });
        if let Some(errno) = self.errno_ret {
            rule["errnoRet"] = json!(errno);
        }
        let args: Vec<_> = self
            .args
            .iter()
            .flatten()
            .map(|arg| arg.resolve(reader))
            .collect();
        if !args.is_empty() {
            rule["args"] = json!(args);
        }
        rule
    }
}

impl Arg {
    fn resolve(&self, reader: Reader) -> Value {
        let (mut one, mut two) = (self.value, self.value_two);
        if self.op == Operator::MaskedEqual && reader == Reader::Libcontainer {
            (one, two) = (two, one);
        }
        json!({ "index": self.index, "value": one, "valueTwo": two, "op": self.op })
    }
}

/// This machine's architecture, as libseccomp and as Docker call it.
fn native() -> (&'static str, &'static str) {
    match ARCH {
        "x86_64" => ("SCMP_ARCH_X86_64", "amd64"),
        "x86" => ("SCMP_ARCH_X86", "x86"),
        "aarch64" => ("SCMP_ARCH_AARCH64", "arm64"),
        "arm" => ("SCMP_ARCH_ARM", "arm"),
        "riscv64" => ("SCMP_ARCH_RISCV64", "riscv64"),
        "s390x" => ("SCMP_ARCH_S390X", "s390x"),
        "powerpc64" => ("SCMP_ARCH_PPC64LE", "ppc64le"),
        "loongarch64" => ("SCMP_ARCH_LOONGARCH64", "loong64"),
        other => ("", other),
    }
}

fn kernel_is_at_least(version: Option<&str>) -> anyhow::Result<bool> {
    let Some(version) = version else {
        return Ok(true);
    };
    let needed = parse_version(version)
        .with_context(|| format!("`minKernel` of `{version}` is not like 4.8"))?;
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("can't read {path}"))?;
    let ours = parse_version(&release)
        .with_context(|| format!("the kernel's version `{}` is strange", release.trim()))?;
    Ok(ours >= needed)
}

/// Major and minor number; what follows is a vendor's.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .trim()
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_dockers() {
        let profile: Profile = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                { "name": "old", "action": "SCMP_ACT_ERRNO" },
                { "names": ["new"], "action": "SCMP_ACT_ERRNO", "includes": { "minKernel": "999.0" } },
                { "names": ["there"], "action": "SCMP_ACT_ERRNO", "includes": { "minKernel": "4.8" } },
                { "names": ["both"], "action": "SCMP_ACT_ERRNO", "includes": { "caps": ["CAP_BPF", "CAP_CHOWN"] } },
                { "names": ["neither"], "action": "SCMP_ACT_ERRNO", "excludes": { "caps": ["CAP_BPF", "CAP_CHOWN"] } },
            ],
        }))
        .unwrap();
        let names = |capabilities| {
            let resolved = profile.resolve(capabilities, Reader::Standard).unwrap();
            let rules = resolved["syscalls"].as_array().unwrap().iter();
            let mut names: Vec<_> = rules.map(|rule| rule["names"][0].to_string()).collect();
            names.sort();
            names.join(" ").replace('"', "")
        };
        assert_eq!(names(CapabilitySet::empty()), "neither old there");
        assert_eq!(names(CapabilitySet::BPF), "old there");
        assert_eq!(
            names(CapabilitySet::BPF | CapabilitySet::CHOWN),
            "both old there"
        );
    }
}
