//! Reads a log, also while it grows.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify,
    io::Errno,
};

use super::{
    log::LogLine,
    process::{Process, ProcessHandle},
};

/// How much is read at once in search of the last lines.
const BLOCK_BYTES: usize = 64 << 10;

/// A place in a log, from which entries are read.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: BufReader<File>,
    /// Where the next line begins, bytes.
    at: u64,
    /// What is there of a line that has not ended.
    begun: Vec<u8>,
}

impl LogReader {
    /// Before the last `tail` entries of the log at `path`, or before the first. `None` if there is no
    /// log: nothing has been written to one yet.
    pub fn open(path: &Path, tail: Option<u64>) -> anyhow::Result<Option<Self>> {
        let what = || format!("can't read the log {}", path.display());
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(what),
        };
        let at = match tail {
            Some(lines) => start_of_last(&mut file, lines).with_context(what)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(at)).with_context(what)?;
        Ok(Some(Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            at,
            begun: Vec::new(),
        }))
    }

    /// The next entry, or none if that is not written yet. One that is damaged is named, and may be
    /// passed over by asking again.
    pub fn read_next(&mut self) -> anyhow::Result<Option<LogLine>> {
        let read = self.file.read_until(b'\n', &mut self.begun);
        read.with_context(|| format!("can't read the log {}", self.path.display()))?;
        if !self.begun.ends_with(b"\n") {
            return Ok(None);
        }
        let line = std::mem::take(&mut self.begun);
        let at = self.at;
        self.at += line.len() as u64;
        serde_json::from_slice(&line)
            .with_context(|| self.damage(at))
            .map(Some)
    }

    /// Says so if the last line is half of one, and nobody will write the other half.
    pub fn end(&self) -> anyhow::Result<()> {
        if self.begun.is_empty() {
            return Ok(());
        }
        anyhow::bail!("{}: it breaks off", self.damage(self.at))
    }

    fn damage(&self, at: u64) -> String {
        format!("the log {} is damaged at byte {at}", self.path.display())
    }
}

/// All entries of the log at `path` as it is now; none if nothing has been written yet.
pub fn read_log(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<LogLine>>> {
    let mut reader = LogReader::open(path, None)?;
    Ok(std::iter::from_fn(move || {
        match reader.as_mut()?.read_next() {
            Ok(None) => {
                let ended = reader.take()?.end();
                ended.err().map(Err)
            }
            read => read.transpose(),
        }
    }))
}

/// Where the last `lines` lines of a file begin. A line that has not ended counts as one.
fn start_of_last(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let whole = end;
    let mut block = vec![0; BLOCK_BYTES];
    let mut seen = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES as u64);
        let block = &mut block[..usize::try_from(end - start).unwrap_or(BLOCK_BYTES)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        for (index, _) in block
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            let after = start + index as u64 + 1;
            // The line feed at the very end ends the last line and begins none.
            if after == whole {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(if lines == 0 { whole } else { 0 })
}

/// Tells when a log has grown, or nobody will write to it any more.
#[derive(Debug)]
pub struct LogWatch {
    grown: std::os::fd::OwnedFd,
    writer: Option<ProcessHandle>,
}

impl LogWatch {
    /// Watches the log at `path`, which there is, that `writer` writes to.
    pub fn new(path: &Path, writer: &Process) -> anyhow::Result<Self> {
        let what = || format!("can't watch the log {}", path.display());
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let grown = inotify::init(flags).with_context(what)?;
        inotify::add_watch(&grown, path, inotify::WatchFlags::MODIFY).with_context(what)?;
        let writer = writer.open()?;
        Ok(Self { grown, writer })
    }

    /// Waits until there may be more to read. Whether there may be still more later.
    pub fn wait(&self) -> anyhow::Result<bool> {
        let Some(writer) = &self.writer else {
            return Ok(false);
        };
        let mut fds = [
            PollFd::new(writer, PollFlags::IN),
            PollFd::new(&self.grown, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("can't wait for a log to grow"),
        }
        let ended = !fds[0].revents().is_empty();
        // What happened is of no interest, only that something did.
        let mut events = [0; 4096];
        while rustix::io::read(&self.grown, &mut events).is_ok_and(|read| read > 0) {}
        Ok(!ended)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use tempfile::TempDir;

    use super::*;

    fn entry(text: &str) -> String {
        format!("{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}}\n")
    }

    fn texts(path: &Path, tail: Option<u64>) -> Vec<String> {
        let mut reader = LogReader::open(path, tail).unwrap().unwrap();
        std::iter::from_fn(|| reader.read_next().unwrap().map(|line| line.log)).collect()
    }

    #[test]
    fn the_last_ones() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("log");
        assert!(LogReader::open(&path, Some(1)).unwrap().is_none());
        fs::write(&path, "").unwrap();
        assert!(texts(&path, Some(3)).is_empty());
        // Longer than a block, and than two.
        let all: Vec<String> = (0..3000).map(|number| number.to_string()).collect();
        fs::write(
            &path,
            all.iter().map(|text| entry(text)).collect::<String>(),
        )
        .unwrap();
        assert!(fs::metadata(&path).unwrap().len() > 2 * BLOCK_BYTES as u64);
        for tail in [0, 1, 2, 999, 2999, 3000, 3001] {
            let from = all.len().saturating_sub(tail);
            assert_eq!(texts(&path, Some(tail as u64)), all[from..], "{tail}");
        }
        assert_eq!(texts(&path, None), all);
    }

    #[test]
    fn half_a_line_is_waited_for() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        let mut reader = LogReader::open(&path, None).unwrap().unwrap();
        assert!(reader.read_next().unwrap().is_none());
        let line = entry("one");
        let (first, second) = line.split_at(9);
        file.write_all(first.as_bytes()).unwrap();
        assert!(reader.read_next().unwrap().is_none());
        let said = reader.end().unwrap_err().to_string();
        assert!(
            said.contains(path.to_str().unwrap()) && said.contains("byte 0"),
            "{said}"
        );
        file.write_all(second.as_bytes()).unwrap();
        assert_eq!(reader.read_next().unwrap().unwrap().log, "one");
        reader.end().unwrap();
    }

    #[test]
    fn what_is_damaged_is_named_and_the_rest_is_read() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, entry("one") + "{]\n" + &entry("two") + "{").unwrap();
        let read: Vec<_> = read_log(&path).unwrap().collect();
        let shown: Vec<String> = read
            .into_iter()
            .map(|line| line.map_or_else(|error| format!("{error:#}"), |line| line.log))
            .collect();
        assert_eq!(shown.len(), 4, "{shown:?}");
        assert!(shown[0] == "one" && shown[2] == "two", "{shown:?}");
        let at = entry("one").len();
        assert!(
            shown[1].contains(&format!("damaged at byte {at}")),
            "{}",
            shown[1]
        );
        assert!(shown[3].contains("breaks off"), "{}", shown[3]);
    }

    #[test]
    fn growth_and_the_end_are_noticed() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let writer = Process::of(child.id().cast_signed()).unwrap();
        let watch = LogWatch::new(&path, &writer).unwrap();
        file.write_all(b"x").unwrap();
        assert!(watch.wait().unwrap());
        drop(child.stdin.take());
        assert!(!watch.wait().unwrap());
        child.wait().unwrap();
        assert!(!LogWatch::new(&path, &writer).unwrap().wait().unwrap());
    }
}
