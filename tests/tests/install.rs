//! What `make install` puts where, and that it works there: the program, what shells complete, and the
//! manual.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what helps a test is a test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mydocker_tests::binary;
use tempfile::TempDir;

/// What a package would hold, and a host with two networks and an image, without any privilege.
struct Installed {
    dir: TempDir,
}

impl Installed {
    fn new() -> Self {
        let this = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        this.make("install");
        this
    }

    /// A target of the Makefile, with a binary that is there already.
    fn make(&self, target: &str) {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(repository)
            .arg(target)
            .arg("PREFIX=/usr");
        make.arg(format!("BIN={}", binary().display()));
        make.arg(format!("DESTDIR={}", self.package().display()));
        make.arg(format!("STAGE={}", self.dir.path().join("stage").display()));
        // This test may itself be run by a make that was told otherwise.
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        said(make.env("SOURCE_DATE_EPOCH", "0"));
    }

    fn package(&self) -> PathBuf {
        self.dir.path().join("package")
    }

    fn share(&self) -> PathBuf {
        self.package().join("usr/share")
    }

    /// All files, as they are called below the package.
    fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.package()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let below = path.strip_prefix(self.package()).unwrap();
                    found.insert(below.display().to_string());
                }
            }
        }
        found
    }

    /// A program that finds the installed `mydocker`, and that one the host.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap();
        let bin = self.package().join("usr/bin");
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.env("MYDOCKER_ROOT", self.dir.path().join("lib"));
        command.env("MYDOCKER_RUN_ROOT", self.dir.path().join("run"));
        command.env("HOME", self.dir.path()).env("TERM", "dumb");
        command
    }

    fn mydocker(&self, line: &str) -> String {
        said(self.command("mydocker").args(line.split_whitespace()))
    }

    /// Networks `web` and `back`, on a model kernel, and an image that nobody unpacks.
    fn with_names(self) -> Self {
        for network in ["--subnet 10.7.0.0/24 web", "--subnet 10.8.0.0/24 back"] {
            self.mydocker(&format!("--executor record network create {network}"));
        }
        let images = self.dir.path().join("lib/image");
        fs::create_dir_all(&images).unwrap();
        fs::write(images.join("busybox.tar"), "").unwrap();
        self
    }
}

/// What a command prints when all goes well, and that it has nothing to complain of.
#[track_caller]
fn said(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (out, err) = (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr),
    );
    let err = err.unwrap();
    assert!(
        status.success() && err.is_empty(),
        "{command:?}: {out}{err}"
    );
    out
}

/// Whether a program is there; says so if it is not.
fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

/// Every command that `--help` tells of, as words with dashes between them.
fn commands(installed: &Installed, above: &str, found: &mut BTreeSet<String>) {
    found.insert(format!("mydocker{above}").replace(' ', "-"));
    let help = installed.mydocker(&format!("{above} --help"));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            // What goes on in the next line is further in.
            let name = line.strip_prefix("  ")?.split(' ').next()?;
            (!name.is_empty() && name != "help").then_some(name)
        });
    for name in names {
        commands(installed, &format!("{above} {name}"), found);
    }
}

#[test]
fn make_install_puts_a_page_for_each_command_and_no_file_but_these() {
    let installed = Installed::new();
    let mut expected: BTreeSet<String> = [
        "usr/bin/mydocker",
        "usr/share/bash-completion/completions/mydocker",
        "usr/share/zsh/site-functions/_mydocker",
        "usr/share/fish/vendor_completions.d/mydocker.fish",
    ]
    .map(ToOwned::to_owned)
    .into();
    let mut all = BTreeSet::new();
    commands(&installed, "", &mut all);
    assert!(all.contains("mydocker-network-port-add"), "{all:?}");
    expected.extend(
        all.iter()
            .map(|name| format!("usr/share/man/man1/{name}.1")),
    );
    assert_eq!(installed.files(), expected);
    installed.make("uninstall");
    assert_eq!(installed.files(), BTreeSet::new());
}

#[test]
fn manual_pages_are_sound() {
    let installed = Installed::new();
    let folder = installed.share().join("man/man1");
    let pages = || {
        fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    for page in pages() {
        let name = page.file_stem().unwrap().display().to_string();
        let text = fs::read_to_string(&page).unwrap();
        let title = format!(".TH {} 1 1970-01-01", name.to_uppercase());
        assert!(text.contains(&title), "{text}");
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
    }
    let create = fs::read_to_string(folder.join("mydocker-network-create.1")).unwrap();
    assert!(create.contains(r"\fB\-\-ip\-range\fR"), "{create}");
    let remove = fs::read_to_string(folder.join("mydocker-network-remove.1")).unwrap();
    assert!(
        remove.contains("Also called \\fBrm, delete\\fR"),
        "{remove}"
    );
    // Neither finds anything at fault.
    if is_there("mandoc") {
        let mut mandoc = Command::new("mandoc");
        let printed = said(mandoc.args(["-Tlint", "-Wwarning"]).args(pages()));
        assert_eq!(printed, "");
    }
    if is_there("groff") {
        for page in pages() {
            said(
                Command::new("groff")
                    .args(["-man", "-Tutf8", "-ww", "-z"])
                    .arg(page),
            );
        }
    }
}

#[test]
fn bash_completes_commands_options_and_names() {
    let installed = Installed::new().with_names();
    let script = installed
        .share()
        .join("bash-completion/completions/mydocker");
    let complete = |line: &str| -> Vec<String> {
        // As bash itself calls what the script has it call.
        let typed = format!(
            r#"source '{}'
            function=$(complete -p mydocker | sed 's/.* -F \([^ ]*\) .*/\1/')
            COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9
            "$function" mydocker "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
            printf '%s\n' "${{COMPREPLY[@]}}""#,
            script.display()
        );
        let offered = said(installed.command("bash").args(["--norc", "-c", &typed]));
        let offered = offered.lines().filter(|line| !line.is_empty());
        offered.map(ToOwned::to_owned).collect()
    };
    for (line, offered) in [
        ("mydocker netw", &["network"][..]),
        ("mydocker network create --sub", &["--subnet"]),
        ("mydocker network re", &["remove", "repair"]),
        ("mydocker network del", &["delete"]),
        ("mydocker network inspect ''", &["back", "web"]),
        ("mydocker network rm w", &["web"]),
        ("mydocker run --net ''", &["back", "web", "none", "host"]),
        ("mydocker run -net w", &["web"]),
        ("mydocker run -d ''", &["busybox"]),
        ("mydocker ps --format=j", &["--format=json"]),
        ("mydocker completion ''", &["bash", "zsh", "fish"]),
        ("mydocker rm ''", &[]),
        // Of a command in a container nothing is known.
        ("mydocker run busybox ''", &[]),
        ("mydocker run busybox ls -", &[]),
        ("mydocker --run-root /nowhere network inspect ''", &[]),
    ] {
        let root = installed.dir.path().join("nowhere");
        let line = line.replace(
            "/nowhere",
            &format!("{0}/run --root {0}/lib", root.display()),
        );
        assert_eq!(complete(&line), offered, "{line}");
    }
    let nowhere = installed.dir.path().join("nowhere");
    assert!(!nowhere.exists(), "who looks makes nothing");
    assert!(!installed.dir.path().join("lib/containers").exists());
}

#[test]
fn fish_completes_what_it_finds_where_it_was_installed() {
    if !is_there("fish") {
        return;
    }
    let installed = Installed::new().with_names();
    let complete = |line: &str| {
        let mut fish = installed.command("fish");
        fish.env("XDG_DATA_DIRS", installed.share());
        said(fish.arg("-c").arg(format!("complete -C '{line}'")))
    };
    let offered = complete("mydocker netw");
    assert_eq!(offered, "network\tNetworks and the containers on them\n");
    let offered = complete("mydocker network inspect ");
    assert_eq!(offered, "back\t10.8.0.0/24\nweb\t10.7.0.0/24\n");
}

/// Types into a zsh with a terminal, a tab key after each part; the last line proves what came of it.
const ZSH: &str = r#"
zmodload zsh/zpty
seen=
await() {
    for ((i = 0; i < 400; i++)); do
        while zpty -rt z part; do seen+=$part; done
        [[ $seen == *$1* ]] && return
        sleep 0.05
    done
    print -r -- "no $1 in: ${(V)seen}"; exit 1
}
zpty z zsh -f -i
zpty -w z "fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; echo rea''dy"
await ready
zpty -wn z $'mydocker network insp\t'
await inspect
zpty -wn z $'w\t\n'
await '"10.7.0.0/24"'
"#;

#[test]
fn zsh_completes_what_it_finds_where_it_was_installed() {
    if !is_there("zsh") {
        return;
    }
    let installed = Installed::new().with_names();
    let folder = installed.share().join("zsh/site-functions");
    said(Command::new("zsh").arg("-n").arg(folder.join("_mydocker")));
    let mut zsh = installed.command("zsh");
    said(zsh.args(["-f", "-c", ZSH, "zsh"]).arg(folder));
}

/// Who sets the variable by chance is not kept from anything, and a question that makes no sense is refused.
#[test]
fn the_variable_of_completion_alone_changes_nothing() {
    let installed = Installed::new();
    let mut command = installed.command("mydocker");
    command.env("MYDOCKER_COMPLETE", "bash").arg("--help");
    assert!(said(&mut command).contains("Commands:"));
    for (shell, words, index, wrong) in [
        ("tcsh", &["mydocker", ""][..], "1", "`tcsh`"),
        ("bash", &["mydocker"], "7", "is 7, and should be"),
        ("bash", &[], "0", "is 0, and should be"),
    ] {
        let mut command = installed.command("mydocker");
        command
            .env("MYDOCKER_COMPLETE", shell)
            .env("_CLAP_COMPLETE_INDEX", index);
        let output = command.arg("--").args(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(wrong), "{said}");
    }
}

#[test]
fn pages_go_to_one_directory() {
    let installed = Installed::new();
    for words in [&["__man"][..], &["__man", "/a", "/b"]] {
        let output = installed.command("mydocker").args(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("takes one directory"), "{said}");
    }
    let file = installed.package().join("usr/bin/mydocker");
    let output = installed
        .command("mydocker")
        .arg("__man")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("can't make {}", file.display())),
        "{said}"
    );
}
