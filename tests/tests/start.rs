//! What the program does before it does anything: its standard files are there, and a pipe that nobody
//! reads ends nothing.
#![allow(clippy::unwrap_used, reason = "what helps a test is a test")]

use std::path::Path;
use std::process::Command;

use mydocker_tests::binary;

/// What a shell prints of a script, in which `$it` is the program with a state of its own, and a model kernel,
/// and `$dir` is empty.
fn sh(dir: &Path, script: &str) -> String {
    let it = format!(
        "{} --root $dir/lib --run-root $dir/run --executor record",
        binary().display()
    );
    let mut shell = Command::new("sh");
    shell.args([
        "-euc",
        &format!("dir={}; it=\"{it}\"; {script}", dir.display()),
    ]);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whatever is opened would be printed to otherwise.
#[test]
fn closed_files_are_no_place_for_others() {
    let dir = tempfile::tempdir().unwrap();
    // To open a pipe waits for who writes to it.
    let script = "mkfifo $dir/archive
        $it image import $dir/archive a <&- >&- 2>&- & it=$!
        for time in $(seq 100); do
            [ -z \"$(readlink /proc/$it/fd/2)\" ] || break
            sleep 0.1
        done
        for file in 0 1 2; do readlink /proc/$it/fd/$file; done
        : >$dir/archive
        wait $it || true";
    assert_eq!(sh(dir.path(), script), "/dev/null\n".repeat(3));
}

#[test]
fn who_reads_no_further_ends_nobody() {
    let dir = tempfile::tempdir().unwrap();
    // The reader is gone before there is anything to read.
    let script = "mkfifo $dir/pipe
        { exec 3>$dir/pipe; sleep 0.2; $it network create a >&3; echo $?; } &
        : <$dir/pipe
        wait
        $it network ls -q";
    assert_eq!(sh(dir.path(), script), "0\na\n");
}
