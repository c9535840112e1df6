//! Cost: what processes take, and what is typical of several.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

/// What one process took, or several in a row.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// What they used, and the kernel for them.
    pub cpu: Duration,
}

impl Cost {
    /// Of the processes that `run` starts and waits for.
    ///
    /// # Panics
    /// When the kernel keeps no account.
    pub fn of<T>(run: impl FnOnce() -> T) -> (Self, T) {
        let (before, start) = (cpu(), Instant::now());
        let result = run();
        let (wall, cpu) = (start.elapsed(), cpu().saturating_sub(before));
        (Self { wall, cpu }, result)
    }
}

/// What the children that were waited for have used.
fn cpu() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it can be asked");
    let us = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Duration::from_micros(us.unsigned_abs())
}

/// Medians of several, milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Median {
    /// From start to end.
    pub wall_ms: f64,
    /// Of all processors.
    pub cpu_ms: f64,
}

impl Median {
    /// Of some, one at least.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn of(costs: &[Cost]) -> Self {
        let median = |mut all: Vec<Duration>| {
            all.sort_unstable();
            all[all.len() / 2].as_secs_f64() * 1e3
        };
        Self {
            wall_ms: median(costs.iter().map(|cost| cost.wall).collect()),
            cpu_ms: median(costs.iter().map(|cost| cost.cpu).collect()),
        }
    }

    /// How many times as much as another, in wall and CPU time.
    #[must_use]
    pub fn ratios(self, other: Self) -> String {
        let (wall, cpu) = (self.wall_ms / other.wall_ms, self.cpu_ms / other.cpu_ms);
        format!("{wall:.2}×/{cpu:.2}×")
    }
}
