//! Fuzz targets: one plain function each, which panics on what must not be.
//!
//! `fuzz_targets/` hands them to libFuzzer, `tests/corpus.rs` runs them over the corpus as
//! ordinary tests.

mod names;
mod netlink;
mod plan;
mod request;
mod shell;
mod store;

pub use names::names;
pub use netlink::netlink;
pub use plan::plan;
pub use request::{request, script};
pub use store::store;

/// A target: what libFuzzer calls it, and what it does with some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each has a file in `fuzz_targets/` and a folder in `corpus/`.
pub const TARGETS: [Target; 6] = [
    ("names", names),
    ("netlink", netlink),
    ("plan", plan),
    ("request", request),
    ("script", script),
    ("store", store),
];

/// As many lines of an input are looked at: a longer one finds nothing that two short ones don't.
const LINES_MAX: usize = 64;

/// The lines of an input that have anything on them.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = data.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty()).take(LINES_MAX)
}

/// Whatever is data is the same data when it is read back.
fn reads_back<T>(value: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let json = serde_json::to_string(value).expect("it is data");
    let again = serde_json::from_str::<T>(&json);
    assert_eq!(again.ok().as_ref(), Some(value), "{json} reads back");
}
