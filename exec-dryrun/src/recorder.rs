//! Recorder: the log of what an executor was told, and of its answers.

use std::collections::BTreeSet;
use std::io::{self, Write};

use mydocker_core::{
    Executor, Facts, Footprint, Listener, Netns, Op, OpError, OpResult, PortBinding, Protocol,
    State,
};
use serde::Serialize;

use crate::rendering::{Line, json};

/// Wraps any executor, and writes each op that was tried to a log: one JSON object a line, as
/// [`Rendering::JsonLines`](crate::Rendering::JsonLines) has it, with the `result`. Questions are
/// passed on and not logged.
#[derive(Debug)]
pub struct Recorder<X, W> {
    inner: X,
    log: W,
    seq: usize,
    failed: Option<io::Error>,
}

#[derive(Serialize)]
struct Answered<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    result: Answer<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer<'a> {
    Ok,
    #[serde(untagged)]
    Refused(&'a OpError),
}

impl<X: Executor, W: Write> Recorder<X, W> {
    /// Logs what `inner` is told to `log`.
    pub fn new(inner: X, log: W) -> Self {
        Self {
            inner,
            log,
            seq: 0,
            failed: None,
        }
    }

    /// The executor and the log.
    ///
    /// # Errors
    /// The log could not be written. That stopped no op: the kernel holds what was asked, and the
    /// log lacks everything from the failure on.
    pub fn finish(mut self) -> io::Result<(X, W)> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.log.flush()?;
        Ok((self.inner, self.log))
    }

    fn write(&mut self, op: &Op, result: &OpResult) {
        if self.failed.is_some() {
            return;
        }
        self.seq += 1;
        let line = Line::new(self.seq, op);
        let result = result
            .as_ref()
            .map_or_else(Answer::Refused, |()| Answer::Ok);
        let text = json(&Answered { line, result });
        self.failed = self.log.write_all(text.as_bytes()).err();
    }
}

impl<X: Executor, W: Write> Executor for Recorder<X, W> {
    fn attend(&mut self, state: &State) {
        self.inner.attend(state);
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<OpResult> {
        let results = self.inner.apply(ops);
        for (op, result) in ops.iter().zip(&results) {
            self.write(op, result);
        }
        results
    }

    fn hurry(&mut self) {
        self.inner.hurry();
    }

    fn observe(&mut self, wanted: &Footprint) -> Result<Footprint, OpError> {
        self.inner.observe(wanted)
    }

    fn facts(&mut self) -> Result<Facts, OpError> {
        self.inner.facts()
    }

    fn listeners(&mut self, wanted: &[PortBinding]) -> Result<Vec<Listener>, OpError> {
        self.inner.listeners(wanted)
    }

    fn is_alive(&mut self, netns: &Netns) -> bool {
        self.inner.is_alive(netns)
    }

    fn namespaces(&mut self) -> Result<BTreeSet<Netns>, OpError> {
        self.inner.namespaces()
    }

    fn lacks(&mut self, protocol: Protocol) -> Option<&'static str> {
        self.inner.lacks(protocol)
    }
}

#[cfg(test)]
mod tests {
    use mydocker_core::{Instance, Object, Veth};

    use super::*;
    use crate::Kernel;

    #[test]
    fn every_try_is_a_line_with_its_answer() {
        let mut recorder = Recorder::new(Kernel::new(), Vec::new());
        let add = Op::Add(Object::Veth(Veth {
            instance: Instance::DEFAULT,
            name: "mdv0".parse().unwrap(),
            mtu_bytes: 1500,
        }));
        recorder.apply(std::slice::from_ref(&add));
        recorder.apply(&[add.clone(), add]);
        let (kernel, log) = recorder.finish().unwrap();
        assert_eq!(kernel.objects().len(), 1);
        let log = String::from_utf8(log).unwrap();
        let lines: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "what was not tried is not there");
        assert_eq!((&lines[0]["seq"], &lines[1]["seq"]), (&1.into(), &2.into()));
        assert_eq!(
            (&lines[0]["op"], &lines[0]["action"]),
            (&"AddVeth".into(), &"add".into())
        );
        assert_eq!(lines[0]["result"], "ok");
        assert_eq!(lines[1]["result"]["kind"], "exists");
    }

    #[test]
    fn a_log_that_is_full_stops_no_op_and_is_told_at_the_end() {
        let mut room = [0_u8; 16];
        let mut recorder = Recorder::new(Kernel::new(), &mut room[..]);
        let add = Op::Add(Object::Ruleset(Instance::DEFAULT));
        assert_eq!(recorder.apply(&[add]), [Ok(())]);
        assert!(recorder.finish().is_err());
    }
}
