//! The model kernel and the real one, told the same, answer the same and hold the same.
//!
//! Lists of ops, most of them nonsense, are carried out on both. A list that tells them apart is made
//! as short as it gets and printed, with the command that tries it again:
//! `ORACLE='…' cargo test -p mydocker-tests --test oracle again`. `PROPTEST_CASES` tries more of them.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what helps a test is a test"
)]

mod host;
mod universe;

use std::thread;

use mydocker_core::{ErrorKind, Executor, Op};
use mydocker_tests::is_root;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use host::{Model, Real, Side};
use universe::{Act, List, links, lists, plans, walls};

/// Much of a list's time is waiting for the kernel.
const THREADS: u32 = 8;

/// What an op came to.
type Answer = Result<(), ErrorKind>;

/// Offers what is left again and again, past what failed.
fn apply(executor: &mut impl Executor, ops: &[Op]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while answers.len() < ops.len() {
        let results = executor.apply(&ops[answers.len()..]);
        assert!(!results.is_empty(), "an executor answers at least one op");
        answers.extend(results.into_iter().map(|r| r.map_err(|error| error.kind)));
    }
    answers
}

/// Carries a list out on both; the first act that tells them apart.
fn compare(list: &List) -> Result<(), String> {
    let wanted = list.objects().cloned().collect();
    let mut model = Model::with(list);
    let mut real = Real::with(list);
    model.forwards(real.forwarding());
    for (at, act) in list.acts.iter().enumerate() {
        let (expected, found) = (model.act(act), real.act(act));
        if let Act::Apply(ops) = act {
            for ((op, expected), found) in ops.iter().zip(expected).zip(found) {
                if expected != found {
                    return Err(format!(
                        "act {at}: model {expected:?}, kernel {found:?}\n  {}",
                        command(op)
                    ));
                }
            }
        }
        let (expected, found) = (model.holds(&wanted), real.holds(&wanted));
        let only_model: Vec<_> = expected.difference(&found).collect();
        let only_real: Vec<_> = Real::told(&found, &expected);
        if !only_model.is_empty() || !only_real.is_empty() {
            return Err(format!(
                "act {at}: only the model has {only_model:#?}\nonly the kernel has {only_real:#?}"
            ));
        }
        if model.forwarding() != real.forwarding() {
            return Err(format!("act {at}: forwarding is another"));
        }
    }
    Ok(())
}

fn command(op: &Op) -> String {
    let text = op.to_string();
    let first = text.lines().next().unwrap_or_default();
    format!("{}: {first}", op.name())
}

fn print(list: &List) -> String {
    let mut text = format!("foreign: {:?}\n", list.foreign);
    for (at, act) in list.acts.iter().enumerate() {
        match act {
            Act::Apply(ops) => {
                text += &format!("act {at}:\n");
                ops.iter()
                    .for_each(|op| text += &format!("  {}\n", command(op)));
            }
            other => text += &format!("act {at}: {other:?}\n"),
        }
    }
    let json = serde_json::to_string(list).unwrap();
    text + "again: ORACLE='" + &json + "' cargo test -p mydocker-tests --test oracle again\n"
}

/// Tries so many lists of that kind, unless `PROPTEST_CASES` says otherwise: always the same ones.
fn try_many<S: Strategy<Value = List>>(seed: u8, cases: u32, strategy: impl Fn() -> S + Sync) {
    if !is_root() {
        return;
    }
    let cases = std::env::var_os("PROPTEST_CASES").map_or(cases, |_| Config::default().cases);
    let part = |number: u32| {
        let config = Config {
            cases: cases.div_ceil(THREADS),
            failure_persistence: None,
            max_shrink_iters: 3000,
            ..Config::default()
        };
        let mut bytes = [seed; 32];
        bytes[0] = u8::try_from(number).unwrap();
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let tried = runner.run(&strategy(), |list| {
            compare(&list).map_err(TestCaseError::fail)
        });
        match tried {
            Ok(()) => None,
            Err(TestError::Fail(why, list)) => Some(format!("{}{why}", print(&list))),
            Err(other) => Some(other.to_string()),
        }
    };
    let found: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || host::apart(|| part(number))))
            .collect();
        threads
            .into_iter()
            .filter_map(|t| t.join().unwrap())
            .collect()
    });
    assert!(found.is_empty(), "{}", found.join("\n---\n"));
}

#[test]
fn links_are_as_modelled() {
    try_many(1, 900, || lists(links()));
}

#[test]
fn firewalls_are_as_modelled() {
    try_many(2, 400, || lists(walls()));
}

#[test]
fn all_of_it_is_as_modelled() {
    try_many(3, 500, || lists([links(), walls()].concat()));
}

#[test]
fn plans_are_as_modelled() {
    try_many(4, 300, plans);
}

/// One list, as a failure prints it.
#[test]
fn again() {
    let Ok(list) = std::env::var("ORACLE") else {
        return;
    };
    let list: List = serde_json::from_str(&list).unwrap();
    let compared = thread::scope(|scope| {
        let one = scope.spawn(|| host::apart(|| compare(&list)));
        one.join().unwrap()
    });
    compared.unwrap_or_else(|why| panic!("{}{why}", print(&list)));
}
