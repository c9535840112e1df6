//! The walls around a container's programs, beside its namespaces.

use std::path::Path;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::{capabilities::Capabilities, seccomp::Seccomp};

/// What a container's programs may not do.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Confinement {
    /// What its root may do.
    pub capabilities: Capabilities,
    /// Whether executing a program never adds privileges (`PR_SET_NO_NEW_PRIVS`): set-user-ID bits and
    /// file capabilities are ignored.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Whether its root filesystem can't be written to; volumes and `/dev` can.
    pub read_only: bool,
}

impl Default for Confinement {
    fn default() -> Self {
        Self {
            capabilities: Capabilities::default(),
            no_new_privileges: true,
            seccomp: Seccomp::default(),
            read_only: false,
        }
    }
}

impl Confinement {
    /// Takes one of Docker's security options: `no-new-privileges[=BOOL]`, `seccomp=unconfined` or
    /// `seccomp=FILE`, which is read.
    pub fn set(&mut self, option: &str) -> anyhow::Result<()> {
        // Docker still takes the colon of its first versions.
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("seccomp", "unconfined") => self.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => self.seccomp = Seccomp::Default,
            ("seccomp", file) if !file.is_empty() => self.seccomp = Seccomp::read(Path::new(file))?,
            _ => bail!(
                "`{option}` is no security option: give `no-new-privileges=true`, \
                 `no-new-privileges=false`, `seccomp=unconfined` or `seccomp=FILE`"
            ),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[&str]) -> Confinement {
        let mut confinement = Confinement::default();
        for option in options {
            confinement.set(option).unwrap();
        }
        confinement
    }

    #[test]
    fn the_last_option_counts() {
        assert!(with(&[]).no_new_privileges);
        assert!(!with(&["no-new-privileges:false"]).no_new_privileges);
        assert!(with(&["no-new-privileges=false", "no-new-privileges"]).no_new_privileges);
        assert_eq!(with(&["seccomp=unconfined"]).seccomp, Seccomp::Unconfined);
        assert_eq!(
            with(&["seccomp=unconfined", "seccomp=builtin"]).seccomp,
            Seccomp::Default
        );
    }

    #[test]
    fn others_are_named() {
        for bad in [
            "",
            "seccomp",
            "seccomp=",
            "no-new-privileges=maybe",
            "apparmor=x",
        ] {
            let said = Confinement::default().set(bad).unwrap_err().to_string();
            assert!(said.contains(&format!("`{bad}`")), "{said}");
        }
        let missing = Confinement::default().set("seccomp=/no/such.json");
        assert!(format!("{:#}", missing.unwrap_err()).contains("/no/such.json"));
    }

    #[test]
    fn a_record_without_it_has_the_default() {
        let read: Confinement = serde_json::from_str("{}").unwrap();
        assert_eq!(read, Confinement::default());
    }
}
