//! The least that a static Rust program does: one line. `start` runs it beside `mydocker --version`.
#![expect(clippy::print_stdout, reason = "that is what it is for")]

fn main() {
    println!("hello, world");
}
