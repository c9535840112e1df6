//! The original's flags: `-net` as well as `--net`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{ArgAction, CommandFactory};

use crate::args::Cli;

/// Rewrites the original's `-net x` to `--net x`. Stops where the container's own words begin.
pub(crate) fn double_dashes(args: Vec<OsString>) -> Vec<OsString> {
    // To describe all commands takes longer than most of them do.
    if !args.iter().any(|arg| is_in_question(arg)) {
        return args;
    }
    let mut root = Cli::command();
    root.build();
    let mut command = &root;
    let mut out: Vec<OsString> = Vec::new();
    let mut args = args.into_iter();
    out.extend(args.next());
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str().filter(|text| *text != "--") else {
            out.push(arg);
            break;
        };
        if let Some(sub) = command.find_subcommand(text) {
            command = sub;
            out.push(arg);
            continue;
        }
        if !text.starts_with('-') {
            out.push(arg);
            if ["run", "exec"].contains(&command.get_name()) {
                break;
            }
            continue;
        }
        let (flag, value) = text
            .split_once('=')
            .map_or((text, None), |(f, v)| (f, Some(v)));
        let word = flag.trim_start_matches('-');
        let long = if word.len() > 1 {
            long_flag(&root, command, word)
        } else {
            None
        };
        let wants_value = long.or_else(|| short_flag(&root, command, flag));
        match (long, flag.starts_with("--")) {
            (Some(_), false) => out.push(format!("-{text}").into()),
            (Some(_) | None, _) => out.push(arg.clone()),
        }
        if wants_value == Some(true) && value.is_none() {
            out.extend(args.next());
        }
    }
    out.extend(args);
    out
}

/// Whether it may be a long flag with one dash.
fn is_in_question(arg: &OsStr) -> bool {
    matches!(arg.as_bytes(), [b'-', second, _, ..] if *second != b'-')
}

/// Whether a long flag of that name takes a value of its own; `None` if there is none.
fn long_flag(root: &clap::Command, command: &clap::Command, word: &str) -> Option<bool> {
    let named = |arg: &&clap::Arg| {
        arg.get_long() == Some(word)
            || arg
                .get_all_aliases()
                .is_some_and(|aliases| aliases.contains(&word))
    };
    find(root, command, named).map(takes_value)
}

/// The same for a short flag; in a group such as `-it` the last one counts.
fn short_flag(root: &clap::Command, command: &clap::Command, flag: &str) -> Option<bool> {
    let letters = flag
        .strip_prefix('-')
        .filter(|letters| !letters.starts_with('-'))?;
    for (at, letter) in letters.char_indices() {
        let arg = find(root, command, |arg: &&clap::Arg| {
            arg.get_short() == Some(letter)
        })?;
        if takes_value(arg) {
            return Some(at + letter.len_utf8() == letters.len());
        }
    }
    Some(false)
}

fn find<'c>(
    root: &'c clap::Command,
    command: &'c clap::Command,
    matches: impl Fn(&&clap::Arg) -> bool,
) -> Option<&'c clap::Arg> {
    let globals = root.get_arguments().filter(|arg| arg.is_global_set());
    let mut own = command.get_arguments().chain(globals);
    // The original had none of those that every command gets.
    own.find(|arg| !["help", "version"].contains(&arg.get_id().as_str()) && matches(arg))
}

fn takes_value(arg: &clap::Arg) -> bool {
    let with_equals = arg.is_require_equals_set();
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !with_equals
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Command;

    fn rewritten(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        let out: Vec<String> = double_dashes(args)
            .into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect();
        out.join(" ")
    }

    #[test]
    fn the_originals_flags_work() {
        for (given, meant) in [
            (
                "mydocker run -it -name a -net br -mem 100m -p 80:80 busybox sh -net",
                "mydocker run -it --name a --net br --mem 100m -p 80:80 busybox sh -net",
            ),
            (
                "mydocker network create -driver bridge -subnet 10.0.0.0/24 x",
                "mydocker network create --driver bridge --subnet 10.0.0.0/24 x",
            ),
            (
                "mydocker run -d -net=br -e -name busybox",
                "mydocker run -d --net=br -e -name busybox",
            ),
            (
                "mydocker -root /a run --dry-run -net b i -it",
                "mydocker --root /a run --dry-run --net b i -it",
            ),
            (
                "mydocker exec -it -user 0 web sh -user",
                "mydocker exec -it --user 0 web sh -user",
            ),
            (
                "mydocker run --net b -- i -net",
                "mydocker run --net b -- i -net",
            ),
        ] {
            assert_eq!(rewritten(given), meant);
        }
    }

    #[test]
    fn a_containers_words_are_its_own() {
        let cli = Cli::try_parse_from(double_dashes(
            [
                "mydocker",
                "run",
                "-it",
                "-p",
                "8080:80",
                "--net",
                "br",
                "busybox",
                "sh",
                "-c",
                "x",
                "--dry-run",
            ]
            .map(OsString::from)
            .into(),
        ))
        .unwrap();
        let Command::Run(run) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(run.command, ["sh", "-c", "x", "--dry-run"]);
        assert!(run.dry_run.dry_run.is_none());
    }
}
