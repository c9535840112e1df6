//! Archives as they come: plain, or compressed with gzip or zstd.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

/// How much is read at once, bytes.
const BUFFER_BYTES: usize = 1 << 20;
/// What skippable frames of zstd begin with, whose first four bits are free.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Compression {
    /// Not at all.
    None,
    Gzip,
    Zstd,
}

/// Reads `source` without its compression, and says which it has.
pub(super) fn decompressed<'s>(
    source: impl Read + 's,
) -> io::Result<(Compression, Box<dyn Read + 's>)> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let mut head = Vec::new();
    // A pipe may give less than is asked for.
    source.by_ref().take(6).read_to_end(&mut head)?;
    let compression = compression(&head)?;
    let whole = Cursor::new(head).chain(source);
    Ok((
        compression,
        match compression {
            Compression::None => Box::new(whole),
            Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
            Compression::Zstd => Box::new(Zstd::new(whole)),
        },
    ))
}

fn compression(head: &[u8]) -> io::Result<Compression> {
    let other = match head {
        [0x1f, 0x8b, ..] => return Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Ok(Compression::Zstd),
        [0x50..=0x5f, rest @ ..] if rest.starts_with(&SKIPPABLE) => return Ok(Compression::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
        [b'B', b'Z', b'h', ..] => "bzip2",
        _ => return Ok(Compression::None),
    };
    Err(io::Error::other(format!(
        "it is compressed with {other}: use gzip or zstd, or no compression"
    )))
}

/// All frames of a zstd stream, one after the other, each checked against its checksum if it has one.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        // Its limit for what a frame may have us keep in memory is that of the `zstd` command, 128 MiB.
        let decoder = FrameDecoder::new();
        Self {
            source,
            decoder,
            in_frame: false,
        }
    }

    /// Goes to the next frame, over those to be skipped. False if there is none.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = self.source.by_ref().take(u64::from(length));
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let (wanted, found) = (
            self.decoder.get_checksum_from_data(),
            self.decoder.get_calculated_checksum(),
        );
        match wanted {
            Some(_) if wanted != found => {
                Err(io::Error::other("a frame differs from its checksum"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut self.source, one);
                decoded.map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 if !buffer.is_empty() => self.end_frame()?,
                read => return Ok(read),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression as Level, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let (compression, mut reader) = decompressed(bytes)?;
        let mut all = Vec::new();
        reader.read_to_end(&mut all)?;
        Ok((compression, all))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn all_kinds_read_alike() {
        let text = b"what is in it ".repeat(10_000);
        assert_eq!(read(&text).unwrap(), (Compression::None, text.clone()));
        assert_eq!(
            read(&gzip(&text)).unwrap(),
            (Compression::Gzip, text.clone())
        );
        assert_eq!(read(&zstd(&text)).unwrap(), (Compression::Zstd, text));
        for short in [&b""[..], b"x", b"\x1f"] {
            assert_eq!(read(short).unwrap(), (Compression::None, short.to_vec()));
        }
    }

    /// As parallel compressors write: frames in a row, and some to be skipped.
    #[test]
    fn parts_in_a_row_are_one() {
        let gzips = [gzip(b"one, "), gzip(b"two")].concat();
        assert_eq!(read(&gzips).unwrap().1, b"one, two");
        let skipped = [&[0x50][..], &SKIPPABLE, &3_u32.to_le_bytes(), b"xyz"].concat();
        let frames = [skipped.clone(), zstd(b"one, "), skipped, zstd(b"two")].concat();
        assert_eq!(
            read(&frames).unwrap(),
            (Compression::Zstd, b"one, two".to_vec())
        );
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let text: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        for whole in [gzip(&text), zstd(&text)] {
            assert!(read(&whole[..whole.len() / 2]).is_err(), "cut short");
            let mut damaged = whole.clone();
            damaged[whole.len() / 2] ^= 0x55;
            assert!(!read(&damaged).is_ok_and(|(_, read)| read == text));
            assert!(read(&damaged).is_err(), "damaged");
        }
        let error = read(b"\xfd7zXZ\0").unwrap_err().to_string();
        assert!(error.contains("xz"), "{error}");
    }
}
