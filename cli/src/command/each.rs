//! Commands on several containers at once.

use crate::failure::Failure;

/// Does the same with each container that is named. What fails with one does not keep the others: it is
/// said, and the command fails in the end.
pub(super) fn each(
    texts: &[String],
    mut act: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for text in texts {
        let Err(failure) = act(text) else {
            continue;
        };
        let code = failed.as_ref().map_or(0, |earlier| earlier.code);
        if let Some(earlier) = failed {
            earlier.report();
        }
        let worst = code.max(failure.code);
        failed = Some(failure.with_code(worst));
    }
    failed.map_or(Ok(()), Err)
}
