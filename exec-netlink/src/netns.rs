//! Network namespaces: made, entered and removed without starting a process.
//!
//! A namespace is a property of a thread. Whoever enters one does so on a thread of its own that
//! ends afterwards, but for a visit: that one is back before anything else is done. A socket
//! stays in the namespace that its thread was in when it was opened, so it may be brought back and
//! used anywhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs, statfs};

/// The file system whose files are namespaces (`NSFS_MAGIC`, linux/magic.h).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Runs `f` inside the namespace that `netns` is bound to: `/run/netns/NAME`, `/proc/PID/ns/net`.
/// A panic in `f` is an error. Equivalent to: nsenter --net=PATH
pub fn run_in<T: Send>(netns: &Path, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    run_in_fd(open(netns)?.as_fd(), f)
}

/// As [`run_in`], for a namespace that is open already.
pub fn run_in_fd<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        Ok(f())
    })
}

/// As [`run_in_fd`], on the calling thread, which is in `home` and comes back: a thread of its own
/// takes longer than all that is done there, and waits for a processor.
///
/// That there is a way back is made sure of before: it takes no more than the way out, and nobody but
/// this thread could take its capabilities.
pub(crate) fn visit<T>(
    home: BorrowedFd<'_>,
    netns: BorrowedFd<'_>,
    f: impl FnOnce() -> T,
) -> io::Result<T> {
    setns(home, CloneFlags::CLONE_NEWNET)?;
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let done = catch_unwind(AssertUnwindSafe(f));
    if setns(home, CloneFlags::CLONE_NEWNET).is_err() {
        // Whatever this thread did next would be done to somebody else's network.
        std::process::abort();
    }
    done.map_err(|_| panicked())
}

/// Opens a namespace by its path, whoever holds it. `EINVAL` if the file is no namespace.
pub fn open(path: &Path) -> io::Result<File> {
    // A path is a claim: without O_NONBLOCK, opening a pipe would wait for its writer.
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    if is_nsfs(&file)? {
        Ok(file)
    } else {
        Err(Errno::EINVAL.into())
    }
}

/// Whether there is no such file, or one that is no namespace any more. Who may not look can't tell,
/// and is told that it is there. One call, since a command asks this of several.
#[must_use]
pub fn is_gone(path: &Path) -> bool {
    match statfs(path) {
        Ok(system) => system.filesystem_type() != NSFS_MAGIC,
        Err(errno) => [Errno::ENOENT, Errno::ENOTDIR, Errno::ESRCH].contains(&errno),
    }
}

/// Makes a namespace and binds it to `path`, with the directories above. `EEXIST` if there is such
/// a file already. The namespace lives until [`remove`] and until its last process ends.
/// Equivalent to: ip netns add NAME
pub fn create(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)?;
    let bound = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // Not /proc/self, which is the namespace of the main thread.
        let ours = Path::new("/proc/thread-self/ns/net");
        Ok(mount(
            Some(ours),
            path,
            None::<&Path>,
            MsFlags::MS_BIND,
            None::<&Path>,
        )?)
    });
    if bound.is_err() {
        // The first error is the one that counts.
        let _ = fs::remove_file(path);
    }
    bound
}

/// Unbinds the namespace from `path` and removes the file. What is not there is fine; so is a file
/// that a crash left behind unbound. Equivalent to: ip netns delete NAME
pub fn remove(path: &Path) -> io::Result<()> {
    // Detached, it goes when its last user does, and nobody waits for that.
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether `path` leads to a network namespace. One that is not there does not. A namespace of
/// another kind is told apart by trying to enter it, which takes `CAP_SYS_ADMIN`.
pub fn is_netns(path: &Path) -> io::Result<bool> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            // Not a namespace, a socket, a path through a file.
            Some(Errno::EINVAL | Errno::ENXIO | Errno::ENOTDIR) => return Ok(false),
            Some(_) | None => return Err(error),
        },
    };
    match run_in_fd(file.as_fd(), || ()) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(false),
        other => other.map(|()| true),
    }
}

fn is_nsfs(file: &File) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == NSFS_MAGIC)
}

/// Runs `f` on a thread that is not used for anything else.
fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)?;
        thread.join().unwrap_or_else(|_| Err(panicked()))
    })
}

fn panicked() -> io::Error {
    io::Error::other("panic inside a network namespace")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::symlink;

    use super::*;

    fn current() -> String {
        fs::read_link("/proc/thread-self/ns/net")
            .unwrap()
            .display()
            .to_string()
    }

    /// On a thread of its own, should it fail to come back.
    fn visited(path: &Path, there: &str) {
        let here = current();
        let home = open(Path::new("/proc/thread-self/ns/net")).unwrap();
        let (home, file) = (home.as_fd(), open(path).unwrap());
        assert_eq!(visit(home, file.as_fd(), current).unwrap(), there);
        assert_eq!(current(), here);
        let panicked = visit(home, file.as_fd(), || -> () { panic!("inside") });
        assert!(panicked.unwrap_err().to_string().contains("panic"));
        assert_eq!(current(), here);
        let no_netns = File::open(path.parent().unwrap()).unwrap();
        visit(home, no_netns.as_fd(), || ()).unwrap_err();
        assert_eq!(current(), here);
    }

    #[test]
    fn made_entered_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netns/web");
        match create(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                println!("skipped: a network namespace takes root: {error}");
                assert!(!path.exists());
                return;
            }
            other => other.unwrap(),
        }
        assert!(is_netns(&path).unwrap() && !is_gone(&path));
        assert_eq!(
            create(&path).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let here = current();
        let (there, listener) =
            run_in(&path, || (current(), TcpListener::bind("[::]:0").unwrap())).unwrap();
        assert_ne!(here, there);
        assert_eq!(here, current());
        assert_eq!(there, run_in(&path, current).unwrap());
        let nobody = listener.local_addr().unwrap().port();
        assert!(std::net::TcpStream::connect(("127.0.0.1", nobody)).is_err());
        let panicked = run_in(&path, || -> () { panic!("inside") }).unwrap_err();
        assert!(panicked.to_string().contains("panic"));
        thread::spawn({
            let path = path.clone();
            move || visited(&path, &there)
        })
        .join()
        .unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
        assert!(!is_netns(&path).unwrap() && is_gone(&path));
        create(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn other_files_are_no_network_namespaces() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        File::create(&file).unwrap();
        symlink("/proc/self/ns/net", dir.path().join("link")).unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [
            &file,
            &fifo,
            dir.path(),
            &file.join("below"),
            &dir.path().join("absent"),
        ] {
            assert!(!is_netns(path).unwrap(), "{}", path.display());
            assert!(is_gone(path), "{}", path.display());
            assert!(run_in(path, || ()).is_err());
        }
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: unmounting and entering namespaces take root");
            return;
        }
        // What a crash between the two halves of `create` leaves.
        remove(&file).unwrap();
        assert!(!file.exists());
        assert!(!is_netns(Path::new("/proc/self/ns/mnt")).unwrap());
        assert!(is_netns(Path::new("/proc/self/ns/net")).unwrap());
        assert!(is_netns(&dir.path().join("link")).unwrap());
        assert!(!is_gone(&dir.path().join("link")));
    }
}
