//! Finds libseccomp, which filters the system calls of containers.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // What the linker of `make release` goes by.
    println!("cargo:rerun-if-changed=release");
    println!("cargo:rerun-if-env-changed=LIBSECCOMP_LIB_PATH");
    // Whoever says where it is has said so to the crate that links it.
    let needed = env::var_os("CARGO_FEATURE_CONTAINERS").is_some();
    if !needed || env::var_os("LIBSECCOMP_LIB_PATH").is_some() {
        return;
    }
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        // It is asked for as a shared library, which a static program can't load. A linker that meets a
        // directory with the static one alone takes that.
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
        let link = out.join("libseccomp.a");
        replace(&find("libseccomp.a"), &link).expect("a link to libseccomp.a");
        println!("cargo:rustc-link-search=native={}", out.display());
    } else {
        find("libseccomp.so");
    }
}

/// Where the C compiler, which links, finds a library.
fn find(name: &str) -> PathBuf {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .arg(format!("-print-file-name={name}"))
        .output();
    let found = output.map_or_else(
        |_| PathBuf::new(),
        |output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()),
    );
    // It says the bare name of what it does not find.
    assert!(
        found.is_absolute() && found.exists(),
        "\n\n{name} is missing: install libseccomp's development files (Debian: apt-get install \
         libseccomp-dev), set LIBSECCOMP_LIB_PATH to where it is, or build without containers \
         (--no-default-features)\n\n"
    );
    found
}

fn replace(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(from, to),
    }
}
