//! Executors that touch no host: a [model](Kernel) of the kernel, a [log](Recorder) of what any
//! executor was told and how it answered, and a [saboteur](Faulty) that makes any executor fail
//! as a real one can. The [renderings](Rendering) of a plan that nobody carries out, and the
//! [wires](Wires) that say what becomes of a packet.
#![forbid(unsafe_code)]

mod faulty;
mod kernel;
mod packet;
mod recorder;
mod rendering;

pub use faulty::{Crashed, Fault, Faulty, until_crash};
pub use kernel::Kernel;
pub use packet::{Delivery, Loss, Receiver, Sender, Uplink, Wires};
pub use recorder::Recorder;
pub use rendering::{Rendering, render, render_warnings};
