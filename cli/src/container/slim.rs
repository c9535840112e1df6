//! Gives memory back that a process which only waits does not need.

use std::fs;

use rustix::mm::{Advice, madvise};

/// Has the kernel forget the pages of our own program that this process has seen: a supervisor has started
/// a container with them, and to wait for its end takes few. Those that are needed come back from the
/// page cache, one fault each.
///
/// Nothing depends on it, so nobody is told when it can't be done.
pub(crate) fn forget_program() {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, end) in pristine(&maps) {
        forget(start, end - start);
    }
}

#[expect(unsafe_code, reason = "what is forgotten is read from the file again")]
fn forget(start: usize, len: usize) {
    let start = std::ptr::without_provenance_mut(start);
    // SAFETY: the pages are those of a file, nobody has written to them or can, and nobody can write to
    // a program that is executed: whoever reads them next finds what was there before.
    let _ = unsafe { madvise(start, len, Advice::LinuxDontNeed) };
}

/// From where to where memory shows a file as it is: mapped to be read or executed only, no page of it
/// a copy of our own, as relocations make them.
fn pristine(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "Anonymous:" {
            found.extend(candidate.take().filter(|_| words.next() == Some("0")));
        } else if let Some(range) = range(first) {
            let flags = words.next().unwrap_or_default();
            let is_file = line.contains(" /");
            candidate = Some(range).filter(|_| is_file && ["r-xp", "r--p"].contains(&flags));
        }
    }
    found
}

/// `55d0c000-55d0d000`
fn range(text: &str) -> Option<(usize, usize)> {
    let (start, end) = text.split_once('-')?;
    let hex = |text| usize::from_str_radix(text, 16).ok();
    hex(start).zip(hex(end)).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 08:01 7 /bin/mydocker
Rss:                1024 kB
Anonymous:             0 kB
00500000-00600000 r--p 00100000 08:01 7 /bin/mydocker
Anonymous:             4 kB
00600000-00700000 rw-p 00200000 08:01 7 /bin/mydocker
Anonymous:             0 kB
00700000-00800000 r--p 00300000 08:01 7 /bin/mydocker
Anonymous:             0 kB
7f000000-7f100000 r--p 00000000 00:00 0
Anonymous:             0 kB
7ffd0000-7ffd1000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_what_shows_a_file_as_it_is() {
        let expected = [(0x40_0000, 0x50_0000), (0x70_0000, 0x80_0000)];
        assert_eq!(pristine(SMAPS), expected);
        assert!(pristine("").is_empty() && pristine("nonsense-here r-xp /").is_empty());
    }

    #[test]
    fn nothing_is_lost() {
        let before = include_str!("slim.rs");
        let copy = before.to_owned();
        forget_program();
        assert_eq!(before, copy);
    }
}
