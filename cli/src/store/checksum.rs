//! Checksum: 32 bits that tell what was written from anything else.

use std::hash::Hasher;

use twox_hash::XxHash64;

/// The lower half of XXH64. Unlike a CRC-32 it asks nobody what the processor can do: each `cpuid` is an exit to
/// the hypervisor, and together they took longer than all else that is read.
pub(super) fn of(bytes: &[u8]) -> u32 {
    XxHash64::oneshot(0, bytes) as u32
}

/// That of these after each other.
pub(super) fn of_all(parts: &[&[u8]]) -> u32 {
    let mut hasher = XxHash64::with_seed(0);
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish() as u32
}

/// CRC-32, as everything had it up to format 5. Files still begin with one, so that any version can tell
/// which format they have.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Whether that is a checksum of `bytes`, as this version has it or those before did.
pub(super) fn is_of(sum: u32, bytes: &[u8]) -> bool {
    of(bytes) == sum || crc32(bytes) == sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_every_format_are_accepted() {
        // `printf 123456789 | xxhsum -H1`, and the check value of CRC-32 (ISO 3309).
        assert_eq!(of(b"123456789"), 0x40e6_ae83);
        assert_eq!(of_all(&[b"1234", b"", b"56789"]), 0x40e6_ae83);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        for sum in [of, crc32] {
            assert!(is_of(sum(b"123456789"), b"123456789"));
            assert!(!is_of(sum(b"123456789"), b"123456788"));
        }
    }
}
