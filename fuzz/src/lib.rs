//! Fuzz targets: one plain function each, which panics on what must not be.
//!
//! `fuzz_targets/` hands them to libFuzzer, `tests/corpus.rs` runs them over the corpus as
//! ordinary tests.

use mydocker_core::{
    ContainerName, Facts, Instance, LinkName, Mac, Netns, NetworkName, NftName, PortSpec, Request,
    State, Transaction, drive,
};
use mydocker_exec_dryrun::Kernel;

/// Every grammar that a word of the command line is parsed by: what parses prints and parses
/// back the same.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    fn check<T: std::str::FromStr + std::fmt::Display + PartialEq>(text: &str) {
        if let Ok(value) = text.parse::<T>() {
            let again = value.to_string().parse::<T>();
            assert!(
                again.is_ok_and(|again| again == value),
                "{text:?} does not read back"
            );
        }
    }
    check::<NetworkName>(text);
    check::<ContainerName>(text);
    check::<LinkName>(text);
    check::<Netns>(text);
    check::<NftName>(text);
    check::<Mac>(text);
    check::<PortSpec>(text);
    for spec in PortSpec::parse_list(text).into_iter().flatten().take(64) {
        check::<PortSpec>(&spec.to_string());
    }
    check::<ipnet::IpNet>(text);
}

/// One request in JSON against an empty host: refused with a message, or planned, and then the
/// plan leads where it says.
pub fn request(data: &[u8]) {
    run(serde_json::from_slice::<Request>(data).into_iter());
}

/// Requests in JSON, one a line, against one host.
pub fn script(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').take(64);
    run(lines.filter_map(|line| serde_json::from_slice::<Request>(line).ok()));
}

/// Plans and applies requests in turn; state and model kernel must agree after each.
fn run(requests: impl Iterator<Item = Request>) {
    let mut state = State::new(Instance::DEFAULT);
    let mut kernel = Kernel::new().any_namespace();
    for request in requests {
        let plan = match state.plan(&Facts::default(), &request) {
            Ok(plan) => plan,
            Err(rejection) => {
                assert!(!rejection.to_string().is_empty());
                continue;
            }
        };
        let json = serde_json::to_string(&plan).expect("a plan is data");
        assert_eq!(
            serde_json::from_str(&json).ok(),
            Some(plan.clone()),
            "a plan reads back"
        );
        let mut fold = Fold(&mut state);
        drive(&mut Transaction::begin(plan), &mut kernel, &mut fold)
            .expect("a journal of our own making makes sense");
        let repair = state.repair(&Facts::default(), kernel.objects());
        let open = repair
            .ops
            .iter()
            .find(|op| !op.name().ends_with("Forwarding"));
        assert_eq!(open, None, "the kernel is not what the state says");
    }
}

/// A journal that is nothing but the state it leads to.
struct Fold<'s>(&'s mut State);

impl mydocker_core::Recorder for Fold<'_> {
    type Error = mydocker_core::Damage;

    fn record(&mut self, entry: &mydocker_core::Entry) -> Result<(), Self::Error> {
        self.0.absorb(entry)
    }
}
