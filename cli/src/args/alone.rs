//! A command that is described without all the others: to describe those takes longer than all that an
//! attach has to decide.

use std::ffi::OsString;

use clap::{Args, Error, Parser};

use super::{Cli, Command, Global, ImageCommand, NetworkCommand, PortCommand, plain};

/// Reads a command line as [`Parser::try_parse_from`] does.
///
/// # Errors
/// It makes no sense, or asks for help.
pub(super) fn read(words: Vec<OsString>) -> Result<Cli, Error> {
    let alone = || Line::of(&words).and_then(Line::read)?.ok();
    match plain::read(&words).or_else(alone) {
        Some(cli) => Ok(cli),
        // An error names commands that nobody named.
        None => Cli::try_parse_from(words),
    }
}

/// A command and what every command takes, as if there were no other.
#[derive(Parser)]
#[command(name = "mydocker", version)]
struct Alone<T: Args> {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    command: T,
}

/// A command line, read up to some part of its command.
#[derive(Clone, Copy)]
struct Line<'w> {
    /// The program, and options that every command takes.
    before: &'w [OsString],
    /// What was not read yet.
    rest: &'w [OsString],
}

impl<'w> Line<'w> {
    /// A line, read up to its command; none if something else may be meant.
    fn of(words: &'w [OsString]) -> Option<Self> {
        let mut count = 1;
        while let Some(option) = words.get(count)?.to_str()?.strip_prefix("--") {
            let (name, has_value) = match option.split_once('=') {
                Some((name, _)) => (name, true),
                None => (option, false),
            };
            let global = Global::augment_args(clap::Command::default());
            if !global
                .get_arguments()
                .any(|arg| arg.get_long() == Some(name))
            {
                return None;
            }
            count += if has_value { 1 } else { 2 };
        }
        let (before, rest) = words.split_at_checked(count)?;
        Some(Self { before, rest })
    }

    /// The next part of the command, by any of its names; none if the words don't say which it is.
    fn word(&mut self) -> Option<&'w str> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        word.to_str()
    }

    fn read(mut self) -> Option<Result<Cli, Error>> {
        Some(match self.word()? {
            "network" | "net" => return self.network(),
            "image" => return self.image(),
            "run" => self.arguments(Command::Run),
            "ps" => self.arguments(Command::Ps),
            "stop" => self.arguments(Command::Stop),
            "rm" => self.arguments(Command::Rm),
            "logs" => self.arguments(Command::Logs),
            "commit" => self.arguments(Command::Commit),
            "exec" => self.arguments(Command::Exec),
            "start" => self.arguments(Command::Start),
            "restart" => self.arguments(Command::Restart),
            "kill" => self.arguments(Command::Kill),
            "wait" => self.arguments(Command::Wait),
            "rename" => self.arguments(Command::Rename),
            "port" => self.arguments(Command::Port),
            "inspect" => self.arguments(Command::Inspect),
            "stats" => self.arguments(Command::Stats),
            "completion" => self.arguments(Command::Completion),
            _ => return None,
        })
    }

    fn network(mut self) -> Option<Result<Cli, Error>> {
        use NetworkCommand as Network;
        let of = Command::Network;
        Some(match self.word()? {
            "create" => self.arguments(|args| of(Network::Create(args))),
            "list" | "ls" => self.arguments(|args| of(Network::List(args))),
            "inspect" => self.arguments(|args| of(Network::Inspect(args))),
            "remove" | "rm" | "delete" => self.arguments(|args| of(Network::Remove(args))),
            "connect" => self.arguments(|args| of(Network::Connect(args))),
            "disconnect" => self.arguments(|args| of(Network::Disconnect(args))),
            "port" => return self.network_port(),
            "log" => self.arguments(|args| of(Network::Log(args))),
            "df" => self.arguments(|args| of(Network::Df(args))),
            "prune" => self.arguments(|args| of(Network::Prune(args))),
            "check" => self.arguments(|args| of(Network::Check(args))),
            "repair" => self.arguments(|args| of(Network::Repair(args))),
            _ => return None,
        })
    }

    fn network_port(mut self) -> Option<Result<Cli, Error>> {
        let of = |command| Command::Network(NetworkCommand::Port(command));
        Some(match self.word()? {
            "add" => self.arguments(|args| of(PortCommand::Add(args))),
            "rm" | "remove" => self.arguments(|args| of(PortCommand::Rm(args))),
            "ls" | "list" => self.arguments(|args| of(PortCommand::Ls(args))),
            _ => return None,
        })
    }

    fn image(mut self) -> Option<Result<Cli, Error>> {
        let of = Command::Image;
        Some(match self.word()? {
            "import" | "load" => self.arguments(|args| of(ImageCommand::Import(args))),
            "ls" | "list" => self.arguments(|args| of(ImageCommand::Ls(args))),
            "rm" | "remove" => self.arguments(|args| of(ImageCommand::Rm(args))),
            "inspect" => self.arguments(|args| of(ImageCommand::Inspect(args))),
            _ => return None,
        })
    }

    /// Reads what follows the command.
    fn arguments<T: Args>(self, command: impl FnOnce(T) -> Command) -> Result<Cli, Error> {
        let words = self.before.iter().chain(self.rest);
        let read = Alone::<T>::try_parse_from(words)?;
        Ok(Cli {
            global: read.global,
            command: command(read.command),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use clap::CommandFactory;
    use proptest::prelude::*;

    use super::*;

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
            (
                "mydocker --root=/a --run-root /b net connect --pid 7 n c",
                true,
            ),
            ("mydocker --root network net connect --pid 7 n c", true),
            ("mydocker network --root /a disconnect n web", true),
            ("mydocker network disconnect n web --run-root=/b", true),
            ("mydocker --executor record network rm n --root /b", true),
            ("mydocker network port add n web 80", true),
            ("mydocker network port remove n web 80 --dry-run=json", true),
            ("mydocker image load a.tar", true),
            ("mydocker run -it -e K=V busybox sh -c network", true),
            ("mydocker exec web --help", false),
            ("mydocker exec web sh --help", true),
            ("mydocker run --help", false),
            ("mydocker run busybox --help", false),
            ("mydocker run busybox -ih", false),
            ("mydocker run busybox sh --help", true),
            ("mydocker run busybox sh --version", true),
            ("mydocker run busybox --version", false),
            ("mydocker ps --executor record", true),
            ("mydocker ps --executor nobody", false),
            ("mydocker", false),
            ("mydocker help", false),
            ("mydocker help network connect", false),
            ("mydocker network", false),
            ("mydocker network help port", false),
            ("mydocker network connect help", false),
            ("mydocker network conect n web", false),
            ("mydocker netwrok ls", false),
            ("mydocker connect n web", false),
            ("mydocker network connect", false),
            ("mydocker network connect --netns c", false),
            ("mydocker network connect --netns c --pid 7 n web", false),
            ("mydocker network connect --subnet 10.0.0.0/24 n web", false),
            ("mydocker network connect --publsh 80 n web", false),
            ("mydocker network --netns c connect n web", false),
            ("mydocker --netns c network connect n web", false),
            ("mydocker network connect --netns c -p 0 n web", false),
            ("mydocker network connect --netns c n a/b", false),
            ("mydocker network ls extra", false),
            ("mydocker network --version", false),
            ("mydocker network connect -h", false),
            ("mydocker --root", false),
            ("mydocker --root network ls", false),
            ("mydocker -- network ls", false),
        ] {
            let words = words(line);
            let whole = shown(Cli::try_parse_from(&words));
            assert_eq!(whole.is_ok(), is_good, "{line}: {whole:?}");
            assert_eq!(shown(read(words)), whole, "{line}");
        }
    }

    #[test]
    fn every_command_is_known_by_each_of_its_names() {
        fn check(command: &clap::Command, above: &[&str]) {
            let aliases = command.get_all_aliases();
            for name in aliases.chain([command.get_name()]) {
                let path = [above, &[name]].concat();
                let words: Vec<OsString> = path.iter().map(OsString::from).collect();
                let has_more = command.has_subcommands();
                let is_known = Line::of(&words).and_then(Line::read).is_some();
                assert_ne!(is_known, has_more, "{path:?}");
                let below = command.get_subcommands();
                below.for_each(|command| check(command, &path));
            }
        }
        check(&Cli::command(), &[]);
    }

    #[test]
    fn what_every_command_takes_has_one_name_and_a_value() {
        let global = Global::augment_args(clap::Command::default());
        for arg in global.get_arguments() {
            let others = (arg.get_short(), arg.get_all_aliases());
            assert!(arg.get_long().is_some() && others == (None, None), "{arg}");
            assert!(arg.is_global_set() && !arg.is_require_equals_set(), "{arg}");
            assert!(matches!(arg.get_action(), clap::ArgAction::Set), "{arg}");
            assert_eq!(arg.get_num_args(), None, "{arg}");
        }
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
                "network connect --netns c", "net disconnect", "net inspect", "network rm", "network port ls",
                "network port add", "network check", "image rm", "run", "exec", "rm", "ps", "port", "network", "bogus",
            ]),
            after in more(5),
        ) {
            let command = command.split(' ');
            let line = ["mydocker"].into_iter().chain(before).chain(command).chain(after);
            let words: Vec<OsString> = line.map(OsString::from).collect();
            let whole = shown(Cli::try_parse_from(&words));
            if let Some(read) = plain::read(&words) {
                prop_assert_eq!(&Ok(format!("{read:?}")), &whole);
            }
            // Whatever it is that can't be read alone.
            prop_assert_eq!(shown(read(words)), whole);
        }
    }
}
