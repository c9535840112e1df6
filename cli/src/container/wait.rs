//! Waits for the ends of containers.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    NetworkFactory,
    id::Id,
    record::{Record, Status},
    stop::take_over,
    store::Containers,
};

/// How often to look at a container that is being made, or that nobody watches over.
const POLL: Duration = Duration::from_millis(20);
/// What waiting without a bound is cut into.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Waits until a container has ended and is taken down. Its program's exit code, or 128 + the signal that
/// killed it; of one that has ended already, at once.
pub fn wait(
    containers: &Containers,
    id: &Id,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<u8> {
    // Opened while it runs, to be read when it is gone with its record, as after `run --rm`.
    let mut exit = None;
    loop {
        let Some(record) = containers.load(id)? else {
            return match exit {
                Some(mut file) => read(&mut file).context("the container was removed"),
                None => bail!("no container {id}"),
            };
        };
        if record.torn_down {
            let name = &record.name;
            return record.exit_code.with_context(|| unknown(name.as_str()));
        }
        if record.status() == Status::Running && exit.is_none() {
            exit = open(&containers.exit_path(id))?;
        }
        wait_once(containers, &record, make_network)?;
    }
}

fn wait_once(
    containers: &Containers,
    record: &Record,
    make_network: &NetworkFactory<'_>,
) -> anyhow::Result<()> {
    match (record.status(), record.supervisor.open()?) {
        (Status::Created, _) => thread::sleep(POLL),
        (_, Some(supervisor)) => {
            supervisor.wait(WAIT_MAX)?;
        }
        // It sheds its tie to a supervisor that was killed, and nobody will tell how it ends.
        (Status::Running, None) => {
            let init = record.init.as_ref().map(super::Process::open).transpose()?;
            if let Some(init) = init.flatten() {
                init.wait(WAIT_MAX)?;
            }
        }
        (Status::Exited, None) => drop(take_over(containers, &record.id, make_network)?),
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    format!("how container {name} ended is not known: its supervisor was killed")
}

/// Makes the file anew for a container that is about to run, so that who waits for an earlier end
/// keeps the earlier file.
pub(crate) fn begin(path: &Path) -> anyhow::Result<()> {
    let made = match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::create_new(path),
    };
    made.map(drop)
        .with_context(|| format!("can't make {}", path.display()))
}

/// Writes down how it ended.
pub(crate) fn end(path: &Path, exit_code: u8) -> anyhow::Result<()> {
    let written = File::options().write(true).open(path);
    written
        .and_then(|mut file| io::Write::write_all(&mut file, &[exit_code]))
        .with_context(|| format!("can't write {}", path.display()))
}

fn open(path: &Path) -> anyhow::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't open {}", path.display())),
    }
}

fn read(file: &mut File) -> anyhow::Result<u8> {
    let mut code = [0];
    file.read_exact(&mut code)
        .context("and how it ended was not written down")?;
    Ok(code[0])
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn who_waits_keeps_the_end_that_was_waited_for() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("exit");
        assert!(open(&path).unwrap().is_none() && end(&path, 1).is_err());
        begin(&path).unwrap();
        let mut first = open(&path).unwrap().unwrap();
        assert!(read(&mut first).is_err(), "it runs");
        end(&path, 7).unwrap();
        begin(&path).unwrap();
        let mut second = open(&path).unwrap().unwrap();
        end(&path, 9).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(
            (read(&mut first).unwrap(), read(&mut second).unwrap()),
            (7, 9)
        );
    }
}
