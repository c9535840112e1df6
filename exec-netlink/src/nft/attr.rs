//! Netlink attributes: written one after another, read back without trust.

use super::abi::{NLA_F_NESTED, NLA_TYPE_MASK};

/// Bytes of `struct nlattr` (linux/netlink.h).
const HEADER_BYTES: usize = 4;

/// Appends attributes to a buffer; every one starts on a multiple of four bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    /// One attribute with `value` as its payload.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
        self
    }

    /// A NUL-terminated string, as the kernel dumps its own.
    pub(super) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
        self
    }

    /// A number, big-endian, as everywhere in nf_tables.
    pub(crate) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An attribute that consists of the attributes that `fill` writes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(kind | NLA_F_NESTED);
        fill(self);
        self.close(start);
        self
    }

    /// Starts an attribute whose length [`Self::close`] fills in.
    pub(super) fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    /// Ends the attribute opened at `start`, or ends it again, further on.
    pub(super) fn close(&mut self, start: usize) {
        let len = self.bytes.len() - start;
        let Ok(short) = u16::try_from(len) else {
            panic!("a netlink attribute of {len} bytes: its length field has 16 bits");
        };
        self.bytes[start..start + 2].copy_from_slice(&short.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One attribute as read: its type without flags, and its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attr<'a> {
    pub(crate) kind: u16,
    pub(super) nested: bool,
    pub(crate) value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// A big-endian number of four bytes.
    pub(crate) fn number(self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }

    /// A string, up to its NUL if it has one.
    pub(crate) fn string(self) -> Option<&'a str> {
        let text = self.value.split(|b| *b == 0).next()?;
        std::str::from_utf8(text).ok()
    }
}

/// The attributes in `bytes`. Ends at the first one that does not fit.
pub(crate) fn attrs(bytes: &[u8]) -> impl Iterator<Item = Attr<'_>> + Clone {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, _) = rest.split_first_chunk::<HEADER_BYTES>()?;
        let [len_0, len_1, kind_0, kind_1] = *head;
        let len = usize::from(u16::from_ne_bytes([len_0, len_1]));
        let raw_kind = u16::from_ne_bytes([kind_0, kind_1]);
        let value = rest.get(HEADER_BYTES..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attr {
            kind: raw_kind & NLA_TYPE_MASK,
            nested: raw_kind & NLA_F_NESTED != 0,
            value,
        })
    })
}

/// The first attribute of type `kind` in `bytes`.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<Attr<'_>> {
    attrs(bytes).find(|attr| attr.kind == kind)
}

/// A number in the byte order of the machine, as everywhere in rtnetlink, at the start of `bytes`.
pub(crate) fn native_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// As [`native_u32`], with a sign.
pub(crate) fn native_i32(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

/// Whether `theirs` says nothing that contradicts `ours`: an attribute on both sides has the same
/// value, and one that repeats does so as often, in the same order. What only one side mentions is
/// a default that the other leaves out: kernels differ in what they dump.
pub(super) fn agree(ours: &[u8], theirs: &[u8]) -> bool {
    attrs(ours).all(|attr| {
        let of_kind = |bytes| attrs(bytes).filter(|other| other.kind == attr.kind);
        let (mine, seen) = (of_kind(ours), of_kind(theirs));
        match seen.clone().count() {
            0 => !attr.nested || attr.value.is_empty(),
            many => {
                many == mine.clone().count()
                    && mine.zip(seen).all(|(mine, seen)| {
                        mine.value == seen.value || mine.nested && agree(mine.value, seen.value)
                    })
            }
        }
    })
}
