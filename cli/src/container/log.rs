//! The log of a container in the background: one JSON object a line, with `log`, `stream` and `time`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// A longer line becomes several entries, all but the last without `\n`.
const ENTRY_BYTES_MAX: u64 = 16 << 10;

/// Where a line came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, and all of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One entry of a log.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct LogLine {
    /// The text, with its `\n` if the line ended.
    pub log: String,
    /// Where it came from.
    pub stream: Stream,
    /// When it was read, RFC 3339, UTC.
    pub time: String,
}

/// A log being written; clones write to the same file.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    file: Arc<Mutex<File>>,
}

impl LogWriter {
    /// Opens the log at `path` for appending, or makes it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("can't open the log {}", path.display()))?;
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
        })
    }

    /// Writes down what comes out of `from` until it ends. When the log can't be written, goes on
    /// reading: a full disk should not stop the container. The first such error is returned.
    pub(crate) fn copy(&self, from: impl Read, stream: Stream) -> io::Result<()> {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        let mut result = Ok(());
        loop {
            line.clear();
            match reader
                .by_ref()
                .take(ENTRY_BYTES_MAX)
                .read_until(b'\n', &mut line)
            {
                Ok(0) => return result,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // How a terminal says that nobody has its other end any more.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                {
                    return result;
                }
                Err(error) => return Err(error),
            }
            let wrote = self.write(&LogLine {
                log: String::from_utf8_lossy(&line).into_owned(),
                stream,
                time: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            });
            result = result.and(wrote);
        }
    }

    fn write(&self, line: &LogLine) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        // One write for one entry, so that a reader never sees half of it.
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::container::read_log;

    #[test]
    fn what_is_written_can_be_read() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("log");
        assert_eq!(read_log(&path).unwrap().count(), 0);
        let log = LogWriter::open(&path).unwrap();
        let long = "x".repeat(20_000);
        log.copy(format!("one\n{long}\nlast").as_bytes(), Stream::Stdout)
            .unwrap();
        log.copy(&b"\xff\n"[..], Stream::Stderr).unwrap();
        let lines: Vec<_> = read_log(&path).unwrap().map(Result::unwrap).collect();
        let stdout: String = lines
            .iter()
            .filter(|l| l.stream == Stream::Stdout)
            .map(|l| l.log.as_str())
            .collect();
        assert_eq!(stdout, format!("one\n{long}\nlast"));
        assert_eq!(lines[1].log.len(), 16 << 10);
        assert_eq!(lines[4].log, "\u{fffd}\n");
        assert!(lines[0].time.ends_with('Z'));
    }
}
