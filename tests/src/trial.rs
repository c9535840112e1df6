//! Trial: a command that meets with every misfortune in turn.

use std::path::Path;
use std::process::Command;

use crate::Host;

/// A command, and the way back from what it does.
pub struct Trial<'a> {
    /// Where it runs.
    pub host: &'a Host,
    /// What a shell does to the host each time before it.
    pub damage: &'a str,
    /// The command.
    pub line: String,
    /// Commands that undo it.
    pub undo: Vec<String>,
    /// What a shell does to the host after it, when it is undone or was not done.
    pub tidy: &'a str,
}

/// How one run of it went.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it met with; `None` when it was over before.
    pub met: Option<String>,
    /// What it exited with, unless it was killed.
    pub code: Option<i32>,
}

impl<'a> Trial<'a> {
    /// A command on a host where nothing is damaged.
    pub fn new(host: &'a Host, line: impl Into<String>, undo: &[&str]) -> Self {
        Self {
            host,
            damage: "",
            line: line.into(),
            undo: undo.iter().map(|&line| line.to_owned()).collect(),
            tidy: "",
        }
    }

    /// Has `attempt` run it, with a misfortune at the place of that number, until nothing happens
    /// to it any more. How many there were.
    ///
    /// # Panics
    /// When its exit code does not say what the kernel holds, or the next command does not leave
    /// a kernel and a state that agree, with all of it or none.
    #[track_caller]
    pub fn run(&self, mut attempt: impl FnMut(&Command, usize) -> Attempt) -> usize {
        let host = self.host;
        let before = state(host);
        host.sh(self.damage);
        host.ok(&self.line);
        let after = state(host);
        self.go_back(&self.undo, &before);
        for number in 0.. {
            host.sh(self.damage);
            let attempt = attempt(&host.mydocker_command(&self.line), number);
            let context = format!("{}, {number}: {attempt:?}", self.line);
            self.check_code(&attempt, [&before, &after], &context);
            self.recover(number, &context);
            let now = state(host);
            assert!([&before, &after].contains(&&now), "{context}\n{now}");
            self.go_back(if now == after { &self.undo } else { &[] }, &before);
            if attempt.met.is_none() {
                assert_eq!((attempt.code, &now), (Some(0), &after), "{context}");
                return number;
            }
        }
        unreachable!("there are fewer places than numbers")
    }

    /// The code says what the kernel holds, before any other command comes to help.
    fn check_code(&self, attempt: &Attempt, [before, after]: [&String; 2], context: &str) {
        let wanted = match attempt.code {
            Some(0) => after,
            Some(1 | 3) => before,
            Some(4) | None => return,
            Some(_) => panic!("{context}"),
        };
        assert_eq!(&state(self.host), wanted, "{context}");
        if self.damage.is_empty() {
            let repair = self.host.ok("network repair --dry-run");
            assert_eq!(repair, "nothing to do\n", "{context}");
        }
    }

    /// The next command, be it one that is refused or one that goes its way, leaves nothing of
    /// the one before.
    fn recover(&self, number: usize, context: &str) {
        let host = self.host;
        // On a host whose firewall was flushed nothing but a repair goes its way.
        let refused = number.is_multiple_of(2) || !self.damage.is_empty();
        if refused {
            host.fails(1, "network remove nosuch");
        } else {
            host.ok("network create --subnet 10.250.0.0/24 bystander");
        }
        let left = unfinished(host.dir());
        assert!(left.is_empty(), "{context}: {left:?}");
        if !self.damage.is_empty() {
            host.ok("network repair");
        }
        let repair = host.ok("network repair --dry-run");
        assert_eq!(repair, "nothing to do\n", "{context}");
        if !refused {
            host.ok("network remove bystander");
        }
    }

    fn go_back(&self, undo: &[String], before: &str) {
        for line in undo {
            self.host.ok(line);
        }
        self.host.sh(self.tidy);
        assert_eq!(state(self.host), before, "{undo:?}");
    }
}

/// Networks and endpoints, all there is to say of them.
fn state(host: &Host) -> String {
    host.ok("network list --format json")
}

/// Files that somebody meant to give another name.
fn unfinished(dir: &Path) -> Vec<String> {
    ["lib", "run"]
        .map(|root| dir.join(root).join("network/.new"))
        .iter()
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}
