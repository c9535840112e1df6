//! `mydocker commit`

use mydocker::container;

use super::App;
use super::image::sweep;
use crate::args::Commit;
use crate::failure::{Failure, told, warn};
use crate::report;

pub(super) fn commit(app: &App, args: &Commit) -> Result<(), Failure> {
    let containers = app.containers()?;
    let id = containers.find_id(&args.container)?;
    let committed = container::commit(&containers, &id, &args.image)?;
    if committed.left_out > 0 {
        warn(format!(
            "{} device nodes, pipes and sockets are not in the image",
            committed.left_out
        ));
    }
    told(report::line(committed.image.id));
    sweep(&containers);
    Ok(())
}
