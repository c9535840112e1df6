//! The engine behind `mydocker`, for programs that want it ready-made.

pub mod container;
pub mod image;
