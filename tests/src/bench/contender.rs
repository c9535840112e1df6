//! Contender: one way to attach a container that publishes a port, and to detach it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A container, by number.
#[derive(Clone, Debug)]
pub struct Container {
    /// What sets it apart from the others of its host.
    pub number: u16,
    /// Its namespace.
    pub netns: PathBuf,
}

impl Container {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        format!("container{}", self.number)
    }

    /// The port of the host that leads to its port 80: of no program, and not among those that the kernel
    /// gives to clients.
    ///
    /// # Panics
    /// When there are too many containers.
    #[must_use]
    pub fn port(&self) -> u16 {
        10_000_u16.checked_add(self.number).expect("a port")
    }
}

/// One who competes. All of it runs in the namespace of its host.
pub trait Contender: Send {
    /// As the table has it: with a version, and what else one must know.
    fn name(&self) -> &str;

    /// Attaches.
    ///
    /// # Errors
    /// A process failed.
    fn attach(&mut self, container: &Container) -> io::Result<()>;

    /// Detaches what was attached last.
    ///
    /// # Errors
    /// A process failed.
    fn detach(&mut self, container: &Container) -> io::Result<()>;
}

/// Runs a process; what it printed.
///
/// # Errors
/// It can't be started, or fails: then what it said.
pub fn run(command: &mut Command, input: &str) -> io::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("{}: {error}", program(command))))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It need not want to know; if it should have, it fails.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{}: {}: {} {}",
        program(command),
        output.status,
        said.trim(),
        complaint.trim()
    )))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
