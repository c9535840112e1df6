//! Progress: a bar on a terminal, for what takes long enough that somebody wonders.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is done by then was not worth a bar.
const QUIET: Duration = Duration::from_secs(1);

/// How far a reading has come. Drawn on stderr, only if that is a terminal, and gone when dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    /// `what` is done to `bytes`, if somebody knows how many that will be.
    pub(super) fn new(what: String, bytes: Option<u64>) -> Self {
        let template = match bytes {
            Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes}",
            None => "{msg} {spinner} {bytes}",
        };
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = match bytes {
            Some(bytes) => ProgressBar::new(bytes),
            None => ProgressBar::new_spinner(),
        };
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Self {
            bar: bar.with_style(style).with_message(what),
            begun: Instant::now(),
        }
    }

    /// So many bytes more are done.
    pub(super) fn advance(&self, bytes: usize) {
        if self.bar.is_hidden() && self.begun.elapsed() > QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// What is read through the answer is done.
    pub(super) fn reader<R: Read>(&self, inner: R) -> Watched<'_, R> {
        Watched {
            inner,
            progress: self,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A reader whose progress is shown.
#[derive(Debug)]
pub(super) struct Watched<'p, R> {
    inner: R,
    progress: &'p Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.advance(read);
        Ok(read)
    }
}
