//! `mydocker completion`, and what a shell asks when somebody presses the tab key.
//!
//! The script that a shell reads knows of no command. It has this program answer, each time, with what
//! could follow what was typed: commands and options as [`args`](crate::args) has them, and the names of
//! the networks, containers and images that there are.

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, ValueEnum, ValueHint};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use mydocker::container::Containers;
use mydocker::image::Images;
use mydocker::store::{Access, Options, Roots, Store};

use crate::args::{self, Cli, Shell};
use crate::failure::Failure;
use crate::report;
use crate::single_dash::double_dashes;

/// The command that a shell completes, and that it asks.
const COMMAND: &str = "mydocker";
/// The variable by which its script says which shell asks.
const ASKER: &str = "MYDOCKER_COMPLETE";
/// The variable by which it says which word is to be completed; the last one without it.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";
/// The variable by which it says what is to be between answers; a line feed without it.
const SEPARATOR: &str = "_CLAP_IFS";
/// How long names may take: somebody waits for them with a finger on a key.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(300);

/// zsh calls a file that it finds on its `fpath` for the first completion already.
const ZSH_AUTOLOAD: &str = r#"
if [[ "${funcstack[1]}" == _mydocker ]]; then
    _clap_dynamic_completer_mydocker "$@"
fi
"#;

/// Prints what a shell has to read once.
pub(super) fn script(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    shell
        .completer()
        .write_registration(ASKER, COMMAND, COMMAND, COMMAND, &mut script)?;
    if shell == Shell::Zsh {
        script.extend(ZSH_AUTOLOAD.bytes());
    }
    Ok(report::text(&String::from_utf8_lossy(&script))?)
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
        }
    }
}

/// What a shell wants to know.
pub(crate) struct Question {
    asker: OsString,
    /// What was typed, the name of the program first.
    words: Vec<OsString>,
}

impl Question {
    /// The question, if this process was started to answer one: `mydocker -- WORD…`, which is no command.
    pub(crate) fn of(words: &[OsString]) -> Option<Self> {
        let words = match words {
            [_, mark, words @ ..] if mark == "--" => words.to_vec(),
            _ => return None,
        };
        let asker = env::var_os(ASKER)?;
        Some(Self { asker, words })
    }

    /// Prints what could stand where the cursor is.
    pub(crate) fn answer(self) -> Result<(), Failure> {
        let name = self.asker.to_string_lossy();
        let shell = Shell::from_str(&name, false).map_err(|_| {
            let wanted = format!("{ASKER} is `{name}`, and should be bash, zsh or fish");
            Failure::refused(wanted).with_code(2)
        })?;
        // As the command itself takes them.
        let mut words = double_dashes(self.words);
        let index = index(&mut words)?;
        let (before, word) = (&words[..index], words[index].to_string_lossy());
        let mut command = Cli::command();
        command.build();
        let matches = matches(before);
        if are_containers_own(&command, &matches) {
            return Ok(());
        }
        let command = described(command, "", &roots(&matches));
        let mut command = without_aliases(command, before, &word);
        let mut answer = Vec::new();
        let dir = env::current_dir().ok();
        let completer = shell.completer();
        completer
            .write_complete(&mut command, words.clone(), dir.as_deref(), &mut answer)
            .map_err(|error| Failure::refused(format!("can't complete `{word}`: {error}")))?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(report::text(&without_options(&answer, &word))?)
    }
}

/// Which word the cursor is at, never the first.
fn index(words: &mut Vec<OsString>) -> Result<usize, Failure> {
    let given = env::var(INDEX).ok().and_then(|index| index.parse().ok());
    let index = given.unwrap_or(words.len().saturating_sub(1));
    if index == 0 || index > words.len() {
        let count = words.len().saturating_sub(1);
        let wrong = format!(
            "{INDEX} is {index}, and should be that of one of {count} words after the command"
        );
        return Err(Failure::refused(wrong).with_code(2));
    }
    if index == words.len() {
        // An empty word, which zsh leaves out.
        words.push(OsString::new());
    }
    Ok(index)
}

/// What the words before the cursor say; what is not finished yet may be wrong in many ways.
fn matches(before: &[OsString]) -> ArgMatches {
    let command = Cli::command().ignore_errors(true);
    command.try_get_matches_from(before).unwrap_or_default()
}

/// Where names are to be looked up, as the words say, or the environment.
fn roots(matches: &ArgMatches) -> Roots {
    let path = |id: &str, default: &str| -> PathBuf {
        let given = matches.try_get_one::<PathBuf>(id).ok().flatten();
        given.cloned().unwrap_or_else(|| default.into())
    };
    Roots {
        root: path("root", args::ROOT),
        run_root: path("run_root", args::RUN_ROOT),
    }
}

/// Whether what follows are the words of a container's own command, of which we know nothing.
fn are_containers_own(command: &clap::Command, matches: &ArgMatches) -> bool {
    if let Some((name, below)) = matches.subcommand() {
        let command = command.find_subcommand(name);
        return command.is_some_and(|command| are_containers_own(command, below));
    }
    let mut positionals = command.get_positionals().peekable();
    while let Some(argument) = positionals.next() {
        let is_there = matches!(
            matches.value_source(argument.get_id().as_str()),
            Some(ValueSource::CommandLine)
        );
        if is_there
            && positionals
                .peek()
                .is_some_and(|next| next.is_trailing_var_arg_set())
        {
            return true;
        }
    }
    false
}

/// Adds what is known of the values of arguments.
fn described(command: clap::Command, path: &str, roots: &Roots) -> clap::Command {
    let command = command.mut_args(|arg| match value(path, arg.get_id().as_str()) {
        Some(Value::Named(names)) => {
            let roots = roots.clone();
            arg.add(ArgValueCandidates::new(move || names(&roots)))
        }
        Some(Value::Path) => arg.value_hint(ValueHint::AnyPath),
        None => arg,
    });
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name());
        described(sub, path.trim_start(), roots)
    })
}

/// Of several names of one command only one is offered: its own, unless another was begun.
fn without_aliases(command: clap::Command, before: &[OsString], word: &str) -> clap::Command {
    command.mut_subcommands(|sub| {
        let is_alias = |word: &OsString| sub.get_all_aliases().any(|alias| *word == *alias);
        let given = before.iter().any(is_alias);
        let sub = match sub.get_name().starts_with(word) && !given {
            true => sub.visible_alias(None),
            false => sub,
        };
        without_aliases(sub, before, word)
    })
}

/// Options are for those who began one.
fn without_options<'a>(answer: &'a str, word: &str) -> Cow<'a, str> {
    if word.starts_with('-') {
        return answer.into();
    }
    let separator = env::var(SEPARATOR).unwrap_or_else(|_| "\n".to_owned());
    let all = answer.split(&separator);
    let kept: Vec<&str> = all.filter(|one| !one.starts_with('-')).collect();
    kept.join(&separator).into()
}

/// What is known of a value.
enum Value {
    /// It is one of these.
    Named(fn(&Roots) -> Vec<CompletionCandidate>),
    /// It is a path of the host.
    Path,
}

/// What an argument of a command is, by what it is called there; none if it is a new name, or no name.
fn value(command: &str, argument: &str) -> Option<Value> {
    Some(Value::Named(match (command, argument) {
        ("network connect", "container") => return None,
        ("network inspect" | "network remove", "name") | (_, "network") => networks,
        ("run", "net") => networks_to_join,
        (_, "container") if command.starts_with("network ") => endpoints,
        (_, "container") => containers,
        (_, "image") => images,
        (_, "netns" | "volume" | "file" | "env_file" | "runtime") => return Some(Value::Path),
        _ => return None,
    }))
}

// Whoever may not read them, or finds them damaged, is offered nothing: this is no time to say so.

fn store(roots: &Roots) -> Option<Store> {
    let options = Options {
        lock_wait: LOCK_WAIT_MAX,
        ..Options::default()
    };
    Store::open_with(roots, Access::Read, &options).ok()
}

fn networks(roots: &Roots) -> Vec<CompletionCandidate> {
    let Some(store) = store(roots) else {
        return Vec::new();
    };
    let networks = store.state().networks();
    let described = networks.map(|network| {
        let subnets: Vec<String> = network
            .subnets
            .iter()
            .map(|subnet| subnet.net.to_string())
            .collect();
        candidate(network.name.as_str(), &subnets.join(", "))
    });
    described.collect()
}

fn networks_to_join(roots: &Roots) -> Vec<CompletionCandidate> {
    let mut all = networks(roots);
    all.push(candidate("none", "no network but loopback"));
    all.push(candidate("host", "the network of the host"));
    all
}

fn endpoints(roots: &Roots) -> Vec<CompletionCandidate> {
    let Some(store) = store(roots) else {
        return Vec::new();
    };
    let mut all: Vec<CompletionCandidate> = Vec::new();
    for endpoint in store.state().endpoints() {
        let name = endpoint.id.container.as_str();
        // One on several networks is one container.
        if !all
            .iter()
            .any(|other| other.get_value() == OsStr::new(name))
        {
            all.push(candidate(name, endpoint.id.network.as_str()));
        }
    }
    all
}

fn containers(roots: &Roots) -> Vec<CompletionCandidate> {
    let containers = Containers::look(&roots.root, &roots.run_root);
    let listing = containers.and_then(|containers| containers.list().ok());
    let records = listing.unwrap_or_default().records.into_iter();
    records
        .map(|record| {
            let about = format!("{} {}", record.spec.image, record.status());
            candidate(record.name.as_str(), &about)
        })
        .collect()
}

fn images(roots: &Roots) -> Vec<CompletionCandidate> {
    let listing = Images::new(&roots.root).list().unwrap_or_default();
    let unpacked = listing.images.iter().map(|image| &image.name);
    let names = unpacked.chain(listing.archives.iter().map(|archive| &archive.name));
    names.map(|name| candidate(name.as_str(), "")).collect()
}

fn candidate(name: &str, about: &str) -> CompletionCandidate {
    let about = (!about.is_empty()).then(|| about.to_owned().into());
    CompletionCandidate::new(name).help(about)
}
