//! Applies plans to a log and to a model of the kernel.
