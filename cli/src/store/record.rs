//! Record: a length, two checksums and a payload.

use super::checksum;

/// Payload length, checksum of the payload, checksum of these two; each a little-endian `u32`.
/// The second makes a wrong length known, which else would pass for a record cut short, and take
/// all that follow it along.
pub(super) const HEAD_BYTES: usize = 12;

/// The format that this code writes, and the newest that it reads.
pub(super) const FORMAT: u64 = 7;

/// What is at a place in a file.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Found<'b> {
    /// A record, and where the next begins.
    Record { payload: &'b [u8], next: usize },
    /// The end.
    End,
    /// A record cut short: its writer died.
    Torn,
    /// Not what was written.
    Damaged(&'static str),
}

/// A payload as it is written with checksums of that kind, `None` if it is longer than a length can say.
pub(super) fn encode(payload: &[u8], sum: fn(&[u8]) -> u32) -> Option<Vec<u8>> {
    let head = head(payload.len(), sum(payload), sum)?;
    Some([&head, payload].concat())
}

/// The head of a payload that is so long and has that checksum of that kind, `None` if it is longer than a length
/// can say.
pub(super) fn head(
    length: usize,
    sum_of_payload: u32,
    sum: fn(&[u8]) -> u32,
) -> Option<[u8; HEAD_BYTES]> {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..4].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    bytes[4..8].copy_from_slice(&sum_of_payload.to_le_bytes());
    let sum_of_both = sum(&bytes[..8]);
    bytes[8..].copy_from_slice(&sum_of_both.to_le_bytes());
    Some(bytes)
}

/// How long the payload is that a head is for; `None` if it is not as it was written.
pub(super) fn payload_bytes(head: &[u8; HEAD_BYTES]) -> Option<u32> {
    let (checked, sum) = head.split_last_chunk()?;
    let length = checked.first_chunk()?;
    checksum::is_of(u32::from_le_bytes(*sum), checked).then(|| u32::from_le_bytes(*length))
}

/// The record that begins at `at`.
pub(super) fn decode(bytes: &[u8], at: usize) -> Found<'_> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Found::End;
    }
    let Some((head, rest)) = rest.split_at_checked(HEAD_BYTES) else {
        return Found::Torn;
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if !checksum::is_of(word(8), &head[..8]) {
        return Found::Damaged("the head of a record has a wrong checksum");
    }
    let Some(payload) = usize::try_from(word(0))
        .ok()
        .and_then(|length| rest.get(..length))
    else {
        return Found::Torn;
    };
    if !checksum::is_of(word(4), payload) {
        return Found::Damaged("a record has a wrong checksum");
    }
    let next = at + HEAD_BYTES + payload.len();
    Found::Record { payload, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut bytes = encode(b"one", checksum::of).unwrap();
        assert_eq!(payload_bytes(bytes.first_chunk().unwrap()), Some(3));
        let next = bytes.len();
        bytes.extend(encode(b"", checksum::of).unwrap());
        let payload = b"one".as_slice();
        assert_eq!(decode(&bytes, 0), Found::Record { payload, next });
        let (payload, end) = (b"".as_slice(), bytes.len());
        assert_eq!(decode(&bytes, next), Found::Record { payload, next: end });
        assert_eq!(decode(&bytes, end), Found::End);
    }

    #[test]
    fn every_cut_is_torn_and_every_flip_is_damage() {
        let bytes = encode(b"payload", checksum::of).unwrap();
        for cut in 1..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 0), Found::Torn, "cut at {cut}");
        }
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(matches!(decode(&flipped, 0), Found::Damaged(_)), "bit {at}");
        }
    }
}
