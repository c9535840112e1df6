//! Rates: how often a second, in rounds where each is measured beside the others.

use serde::Serialize;

use super::Cost;

/// One number for each round, in their order.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// A second of wall time.
    wall: Vec<f64>,
    /// A second of processor time.
    cpu: Vec<f64>,
}

impl Rates {
    /// Adds a round, in which `count` took so much.
    pub fn push(&mut self, count: u32, cost: Cost) {
        let count = f64::from(count);
        self.wall.push(count / cost.wall.as_secs_f64());
        self.cpu.push(count / cost.cpu.as_secs_f64());
    }

    /// How many rounds there were.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.wall.len()
    }

    /// What is typical.
    ///
    /// # Panics
    /// When there was no round.
    #[must_use]
    pub fn typical(&self) -> Typical {
        Typical {
            wall_per_s: median(self.wall.clone()),
            cpu_per_s: median(self.cpu.clone()),
        }
    }

    /// How many times as often as another in the same rounds.
    ///
    /// # Panics
    /// When there was no round.
    #[must_use]
    pub fn of(&self, other: &Self) -> Ratios {
        let pairs = |ours: &[f64], theirs: &[f64]| {
            median(ours.iter().zip(theirs).map(|(a, b)| a / b).collect())
        };
        let (ours, theirs) = (self.typical(), other.typical());
        Ratios {
            wall: ours.wall_per_s / theirs.wall_per_s,
            wall_pairs: pairs(&self.wall, &other.wall),
            cpu: ours.cpu_per_s / theirs.cpu_per_s,
            cpu_pairs: pairs(&self.cpu, &other.cpu),
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Medians of all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Typical {
    /// A second of wall time.
    pub wall_per_s: f64,
    /// A second of processor time.
    pub cpu_per_s: f64,
}

/// How many times as often as another.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    /// Of medians of wall time.
    pub wall: f64,
    /// The median of what was measured in the same round each, which a machine that is busy now and then
    /// moves least.
    pub wall_pairs: f64,
    /// As `wall`, of processor time.
    pub cpu: f64,
    /// As `wall_pairs`, of processor time.
    pub cpu_pairs: f64,
}
