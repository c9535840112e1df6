//! Commands and arguments that are described when they can be meant: to describe all of them takes a fifth of
//! the instructions of an attach, and of its time.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Parser, Subcommand};

thread_local! {
    /// The words of the command line that is read: a command that none of them names can't be meant.
    static WORDS: RefCell<Option<Vec<OsString>>> = const { RefCell::new(None) };
}

/// Reads a command line as [`Parser::try_parse_from`] does.
///
/// # Errors
/// It makes no sense, or asks for help.
pub(crate) fn read<T: Parser>(words: Vec<OsString>) -> Result<T, Error> {
    // An error names commands that nobody named.
    briefly(&words).or_else(|_| T::try_parse_from(words))
}

/// Reads a command line without a description of what it can't mean. What is read is the same, and errors
/// are others.
fn briefly<T: Parser>(words: &[OsString]) -> Result<T, Error> {
    WORDS.set(Some(words.to_vec()));
    let read = T::try_parse_from(words);
    WORDS.take();
    read
}

/// The arguments of one command among many, or its commands.
#[derive(Debug)]
pub(crate) struct Lazy<T>(pub(crate) T);

impl<T: Args> Args for Lazy<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args))
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(|command| described(command, T::augment_args_for_update))
    }
}

impl<T: Subcommand> Subcommand for Lazy<T> {
    fn augment_subcommands(command: Command) -> Command {
        command.defer(|command| with_commands(command, T::augment_subcommands))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        command.defer(|command| with_commands(command, T::augment_subcommands_for_update))
    }

    fn has_subcommand(name: &str) -> bool {
        T::has_subcommand(name)
    }
}

/// A command with the commands below it, or those of them that can be meant.
fn with_commands(command: Command, augment: fn(Command) -> Command) -> Command {
    WORDS.with_borrow(|words| match words {
        None => described(command, augment),
        Some(words) => augment(Command::default())
            .get_subcommands()
            .filter(|below| words.iter().any(|word| is_called(below, word)))
            .cloned()
            .fold(alone(command, words), Command::subcommand),
    })
}

/// A command that hands down to those below it only the options that are given, by the one name that each
/// has, and no command `help`, which does nothing but fail.
fn alone(command: Command, words: &[OsString]) -> Command {
    let command = command.disable_help_subcommand(true);
    command.mut_args(|arg| match arg.get_long() {
        Some(name) if !words.iter().any(|word| gives(word, name)) => arg.global(false),
        _ => arg,
    })
}

/// Whether a word gives an option, with or without a value.
fn gives(word: &OsStr, option: &str) -> bool {
    let word = word.as_bytes().strip_prefix(b"--");
    let rest = word.and_then(|word| word.strip_prefix(option.as_bytes()));
    matches!(rest, Some([] | [b'=', ..]))
}

fn is_called(command: &Command, word: &OsStr) -> bool {
    let mut names = command.get_all_aliases().chain([command.get_name()]);
    names.any(|name| word == name)
}

/// A command with its arguments, which may have a description of their own, and its own description.
fn described(command: Command, augment: fn(Command) -> Command) -> Command {
    let (short, long) = (
        command.get_about().cloned(),
        command.get_long_about().cloned(),
    );
    let mut command = augment(command).long_about(None);
    if let Some(short) = short {
        command = command.about(short);
    }
    if let Some(long) = long {
        command = command.long_about(long);
    }
    command
}

impl<T: FromArgMatches> FromArgMatches for Lazy<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T> Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use clap::CommandFactory;
    use proptest::prelude::*;

    use super::*;
    use crate::args::Cli;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn shown<T: Debug>(read: Result<T, Error>) -> Result<String, String> {
        let shown = read.map(|read| format!("{read:?}"));
        shown.map_err(|error| error.render().ansi().to_string())
    }

    #[test]
    fn lines_are_read_alike() {
        for (line, is_good) in [
            ("mydocker network connect --netns c -p 8080:80 n web", true),
            ("mydocker --root /a net connect --pid 7 n connect", true),
            ("mydocker network disconnect n web --run-root=/b", true),
            ("mydocker network rm n", true),
            ("mydocker network port add n web 80", true),
            ("mydocker network port remove n web 80 --dry-run=json", true),
            ("mydocker image load a.tar", true),
            ("mydocker run -it -e K=V busybox sh -c network", true),
            ("mydocker exec web --help", false),
            ("mydocker exec web sh --help", true),
            ("mydocker run --help", false),
            ("mydocker run busybox --help", false),
            ("mydocker run busybox sh --help", true),
            ("mydocker ps --executor record", true),
            ("mydocker ps --executor nobody", false),
            ("mydocker", false),
            ("mydocker help", false),
            ("mydocker help network connect", false),
            ("mydocker network", false),
            ("mydocker network help port", false),
            ("mydocker network conect n web", false),
            ("mydocker netwrok ls", false),
            ("mydocker connect n web", false),
            ("mydocker network connect", false),
            ("mydocker network connect --netns c", false),
            ("mydocker network connect --netns c --pid 7 n web", false),
            ("mydocker network connect --subnet 10.0.0.0/24 n web", false),
            ("mydocker network connect --publsh 80 n web", false),
            ("mydocker network --netns c connect n web", false),
            ("mydocker network connect --netns c -p 0 n web", false),
            ("mydocker network connect --netns c n a/b", false),
            ("mydocker network ls extra", false),
            ("mydocker network --version", false),
            ("mydocker network connect -h", false),
            ("mydocker --root", false),
            ("mydocker -- network ls", false),
        ] {
            let words = words(line);
            let whole = shown(Cli::try_parse_from(&words));
            assert_eq!(whole.is_ok(), is_good, "{line}: {whole:?}");
            assert_eq!(briefly::<Cli>(&words).is_ok(), is_good, "{line}");
            assert_eq!(shown(read::<Cli>(words)), whole, "{line}");
        }
    }

    #[test]
    fn what_is_handed_down_has_one_name() {
        let mut root = Cli::command();
        root.build();
        let handed_down: Vec<_> = root
            .get_arguments()
            .filter(|arg| arg.is_global_set())
            .collect();
        assert!(!handed_down.is_empty());
        for arg in handed_down {
            let others = (arg.get_short(), arg.get_all_aliases());
            assert!(arg.get_long().is_some() && others == (None, None), "{arg}");
        }
    }

    #[test]
    fn what_no_word_names_is_not_described() {
        WORDS.set(Some(words("mydocker network connect n web")));
        let mut root = Cli::command();
        root.build();
        WORDS.take();
        let mut command = &root;
        for expected in ["network", "connect"] {
            let below = command.get_subcommands();
            let below: Vec<&str> = below.map(Command::get_name).collect();
            assert_eq!(below, [expected]);
            command = command.find_subcommand(expected).unwrap();
        }
        assert_eq!(
            Cli::command().get_subcommands().count(),
            0,
            "nor before it is needed"
        );
    }

    /// Options, with values and without, and what may be a name, a value or a command.
    const MORE: &[&str] = &[
        "--root",
        "--root=/a",
        "--run-root",
        "--executor",
        "record",
        "--netns=c",
        "--netns",
        "-p",
        "80",
        "n",
        "web",
        "network",
        "rm",
        "help",
        "-it",
        "--dry-run",
        "-f",
        "--format",
        "json",
        "--",
        "-",
        "-h",
        "--help",
        "--version",
        "--bogus",
    ];

    fn more(count: usize) -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(MORE), 0..count)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        #[test]
        fn what_is_read_is_what_was_meant(
            before in more(3),
            command in prop::sample::select(vec![
                "network connect --netns c", "net inspect", "network rm", "network port ls", "network port add",
                "network check", "image rm", "run", "exec", "rm", "ps", "port", "network", "bogus",
            ]),
            after in more(5),
        ) {
            let command = command.split(' ');
            let line = ["mydocker"].into_iter().chain(before).chain(command).chain(after);
            let words: Vec<OsString> = line.map(OsString::from).collect();
            let whole = shown(Cli::try_parse_from(&words));
            match briefly::<Cli>(&words) {
                Ok(read) => prop_assert_eq!(Ok(format!("{read:?}")), whole),
                Err(_) => prop_assert!(whole.is_err(), "{:?}", whole),
            }
        }
    }
}
