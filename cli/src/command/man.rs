//! `mydocker __man`: a manual page for each command, as `make install` installs them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::Cli;
use crate::failure::Failure;

/// Section of the manual: commands of users.
const SECTION: &str = "1";

/// What `make install` says. It is described nowhere, for each command would take the longer for it.
const MAN: &str = "__man";

/// What follows `mydocker __man`, if that was said: the directory, and nothing else.
pub(crate) fn wanted(words: &[OsString]) -> Option<&[OsString]> {
    match words {
        [_, mark, words @ ..] if mark == MAN => Some(words),
        _ => None,
    }
}

/// Writes a page for each command into a directory, which is made if it is missing.
pub(crate) fn write(words: &[OsString]) -> Result<(), Failure> {
    let [dir] = words else {
        let wrong = format!("{MAN} takes one directory, and here are {}", words.len());
        return Err(Failure::refused(wrong).with_code(2));
    };
    let dir = Path::new(dir);
    fs::create_dir_all(dir)
        .map_err(|error| Failure::refused(format!("can't make {}: {error}", dir.display())))?;
    // `help` would have a page for each command once more.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, &[], dir)
}

/// Writes the pages of a command and of all below it; `above` has the names of those that it is part of.
fn write_pages(command: &clap::Command, above: &[String], dir: &Path) -> Result<(), Failure> {
    let name = name(command);
    let path = dir.join(format!("{name}.{SECTION}"));
    let text = page(command, above)
        .map_err(|error| Failure::refused(format!("can't make the page of {name}: {error}")))?;
    fs::write(&path, text)
        .map_err(|error| Failure::refused(format!("can't write {}: {error}", path.display())))?;
    let above = [above, &[name.to_owned()]].concat();
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for sub in shown {
        write_pages(sub, &above, dir)?;
    }
    Ok(())
}

fn page(command: &clap::Command, above: &[String]) -> io::Result<String> {
    let mut command = command.clone();
    // One line in place of every option: those have a section.
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let command = command.override_usage(usage);
    let man = Man::new(command.clone())
        .title(name(&command).to_uppercase())
        .section(SECTION)
        .date(today())
        .source(concat!("mydocker ", env!("CARGO_PKG_VERSION")))
        .manual("mydocker");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    aliases(&command).to_writer(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    end(&command, above).to_writer(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    // What a strict reader of manual pages objects to.
    let text = text.replace(".br\n\n.br\n", ".sp\n");
    Ok(text.replace(" \n", "\n"))
}

/// As its page is called: `mydocker-network-create`.
fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// The day that a page is of: today, or as whoever builds a package says, for whom the same has to come
/// out again (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn today() -> String {
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let given = given.and_then(|text| text.parse().ok());
    let time = given.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    let text = humantime::format_rfc3339_seconds(time.unwrap_or_else(SystemTime::now)).to_string();
    text.chars().take_while(|letter| *letter != 'T').collect()
}

/// The other names of a command.
fn aliases(command: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    let names: Vec<&str> = command.get_visible_aliases().collect();
    if !names.is_empty() {
        roff.control("PP", []);
        roff.text([roman("Also called "), bold(names.join(", ")), roman(".")]);
    }
    roff
}

/// What comes after the options.
fn end(command: &clap::Command, above: &[String]) -> Roff {
    let mut roff = Roff::new();
    if let Some(codes) = command.get_after_help() {
        roff.control("SH", ["EXIT STATUS"]);
        // A table, line by line.
        roff.control("nf", []);
        for line in codes.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    if !above.is_empty() {
        roff.control("SH", ["SEE ALSO"]);
        let mut others = Vec::new();
        for other in above {
            if !others.is_empty() {
                others.push(roman(", "));
            }
            others.extend([bold(other), roman(format!("({SECTION})"))]);
        }
        roff.text(others);
    }
    roff
}
