//! Network namespaces, by file descriptor.
