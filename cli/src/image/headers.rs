//! The headers of an archive's entries, as far as the library that reads archives leaves them to us: it
//! knows no attributes of directories, nor values with a line feed in them, and any length of headers.

use std::{
    cell::RefCell,
    io::{self, Read},
    rc::Rc,
};

use anyhow::{Context, bail};

/// Longest headers of one entry, bytes: names, and attributes of 64 KiB at most.
const HEADERS_BYTES_MAX: usize = 1 << 20;
/// What a tar archive is made of, bytes.
pub(super) const BLOCK_BYTES: usize = 512;
/// How attributes are called in headers (pax).
pub(super) const ATTRIBUTE: &str = "SCHILY.xattr.";

/// Name and value.
type Attribute = (String, Vec<u8>);

/// Keeps what is read between two entries, and refuses more than there may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder(Rc<RefCell<Option<Vec<u8>>>>);

impl Recorder {
    /// What is read from now on are headers.
    pub(super) fn begin(&self) {
        *self.0.borrow_mut() = Some(Vec::new());
    }

    /// What is read from now on is content. Returns the headers.
    pub(super) fn end(&self) -> Vec<u8> {
        self.0.borrow_mut().take().unwrap_or_default()
    }

    /// What is read through the answer is kept.
    pub(super) fn reader<R>(&self, inner: R) -> Recorded<R> {
        let recorder = self.clone();
        Recorded { inner, recorder }
    }
}

/// A reader whose headers are kept.
#[derive(Debug)]
pub(super) struct Recorded<R> {
    inner: R,
    recorder: Recorder,
}

impl<R: Read> Read for Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(headers) = self.recorder.0.borrow_mut().as_mut() {
            if headers.len() + read > HEADERS_BYTES_MAX {
                let message =
                    format!("the headers of an entry are longer than {HEADERS_BYTES_MAX} bytes");
                return Err(io::Error::other(message));
            }
            headers.extend_from_slice(&buffer[..read]);
        }
        Ok(read)
    }
}

/// The extended attributes in the headers of one entry. `headers` begins with what fills up the last
/// block of the entry before.
pub(super) fn attributes(headers: &[u8]) -> anyhow::Result<Vec<Attribute>> {
    let mut rest = &headers[headers.len() % BLOCK_BYTES..];
    let mut attributes = Vec::new();
    while let Some((block, after)) = rest.split_at_checked(BLOCK_BYTES) {
        let header = tar::Header::from_byte_slice(block);
        let kind = header.entry_type();
        let extends = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if !extends {
            break;
        }
        let bytes = usize::try_from(header.entry_size()?)?;
        let data = after.get(..bytes).context("its headers are cut short")?;
        if kind.is_pax_local_extensions() {
            attributes = of_records(data)?;
        }
        rest = after
            .get(bytes.next_multiple_of(BLOCK_BYTES)..)
            .unwrap_or_default();
    }
    Ok(attributes)
}

/// Records are `LENGTH KEY=VALUE` and a line feed, and their length counts all of that.
fn of_records(mut data: &[u8]) -> anyhow::Result<Vec<Attribute>> {
    let mut attributes = Vec::new();
    while !data.is_empty() {
        let record = || {
            let space = data.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
            let (record, rest) = data.split_at_checked(length)?;
            let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((&record[..equals], &record[equals + 1..], rest))
        };
        let Some((key, value, rest)) = record() else {
            bail!("its extended header is malformed");
        };
        if let Ok(key) = std::str::from_utf8(key)
            && let Some(name) = key.strip_prefix(ATTRIBUTE)
        {
            attributes.push((name.to_owned(), value.to_vec()));
        }
        data = rest;
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a file after one of another length.
    fn headers(records: &[u8]) -> Vec<u8> {
        let mut extended = tar::Header::new_ustar();
        extended.set_entry_type(tar::EntryType::XHeader);
        extended.set_size(records.len() as u64);
        extended.set_cksum();
        let mut file = tar::Header::new_gnu();
        file.set_size(0);
        file.set_cksum();
        let mut data = records.to_vec();
        data.resize(records.len().next_multiple_of(BLOCK_BYTES), 0);
        [&[0; 100][..], extended.as_bytes(), &data, file.as_bytes()].concat()
    }

    #[test]
    fn values_may_be_anything() {
        let records = b"11 path=/x\n29 SCHILY.xattr.user.a=1\n\n=\0\n22 SCHILY.xattr.b=x=y\n";
        let found = attributes(&headers(records)).unwrap();
        let wanted = [("user.a", &b"1\n\n=\0"[..]), ("b", b"x=y")];
        assert_eq!(
            found,
            wanted.map(|(name, value)| (name.to_owned(), value.to_vec()))
        );
        assert_eq!(attributes(&headers(b"")).unwrap(), []);
        assert_eq!(attributes(b"").unwrap(), []);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            &b"11 path=/x"[..],
            b"99 a=b\n",
            b"2 a=b\n",
            b"x a=b\n",
            b"6 abc\n",
            b"\n",
        ] {
            assert!(attributes(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn endless_headers_are_refused() {
        let recorder = Recorder::default();
        let mut reader = recorder.reader(io::repeat(0));
        reader
            .read_exact(&mut vec![0; 2 * HEADERS_BYTES_MAX])
            .unwrap();
        recorder.begin();
        assert!(
            reader
                .read_exact(&mut vec![0; 2 * HEADERS_BYTES_MAX])
                .is_err()
        );
        assert!(recorder.end().len() <= HEADERS_BYTES_MAX);
        reader
            .read_exact(&mut vec![0; 2 * HEADERS_BYTES_MAX])
            .unwrap();
    }
}
