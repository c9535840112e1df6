//! Requests.

use mydocker_core::{Damage, Entry, Facts, Instance, Recorder, Request, State, Transaction, drive};
use mydocker_exec_dryrun::Kernel;

/// One request in JSON against an empty host: refused with a message, or planned, and then the
/// plan leads where it says.
pub fn request(data: &[u8]) {
    run(serde_json::from_slice::<Request>(data).into_iter());
}

/// Requests in JSON, one a line, against one host.
pub fn script(data: &[u8]) {
    let read = |line| serde_json::from_slice::<Request>(line).ok();
    run(crate::lines(data).filter_map(read));
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
        crate::reads_back(&request);
        crate::reads_back(&plan);
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
pub(crate) struct Fold<'s>(pub(crate) &'s mut State);

impl Recorder for Fold<'_> {
    type Error = Damage;

    fn record(&mut self, entry: &Entry) -> Result<(), Self::Error> {
        self.0.absorb(entry)
    }
}
