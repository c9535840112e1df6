//! Why a batch was not committed, and how the kernel says so.

use std::io;

use super::abi::*;
use super::attr::attrs;
use super::message::Message;
use crate::netlink::{HEADER_BYTES, padded};

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The kernel refused one of the changes and made none.
    #[error("{}{}", io::Error::from_raw_os_error(*.errno), suffix(.text.as_deref()))]
    Refused {
        /// The op that it refused, counted from 0. None if it is about the batch as a whole.
        op: Option<usize>,
        /// Why, `E*`: `EEXIST` for a key that has another value, `ENOENT` for what is not there.
        errno: i32,
        /// What the kernel added in words (`NLMSGERR_ATTR_MSG`, linux/netlink.h).
        text: Option<String>,
    },
    /// The batch did not reach the kernel: nothing changed.
    #[error("batch not sent: {0}")]
    Unsent(#[source] io::Error),
    /// The kernel has it and did not say what became of it: all of it or nothing.
    #[error("no answer to a batch: {0}")]
    InDoubt(#[source] io::Error),
}

fn suffix(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(": {text}"))
}

/// The kernel's verdict on one message (`struct nlmsgerr`, linux/netlink.h).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Acknowledgement {
    /// 0, or why not, as a positive `E*`.
    pub(super) errno: i32,
    /// What the kernel added in words.
    pub(super) text: Option<String>,
    /// Where in the refused message the attribute is that it dislikes.
    pub(super) offset: Option<u32>,
}

impl Acknowledgement {
    /// Reads an `NLMSG_ERROR`; nothing for any other message.
    pub(super) fn decode(message: &Message<'_>) -> Option<Self> {
        if message.kind != NLMSG_ERROR {
            return None;
        }
        let (errno, echo) = message.payload.split_first_chunk::<4>()?;
        let errno = i32::from_ne_bytes(*errno).checked_neg()?;
        let mut acknowledgement = Self {
            errno,
            text: None,
            offset: None,
        };
        // The refused message comes back: its header alone, or, against our wish, all of it.
        let (length, _) = echo.split_first_chunk::<4>()?;
        let length = padded(u32::from_ne_bytes(*length));
        let capped = errno == 0 || message.flags & NLM_F_CAPPED != 0;
        let skip = if capped { HEADER_BYTES } else { length };
        for attr in attrs(echo.get(skip..).unwrap_or_default()) {
            match attr.kind {
                NLMSGERR_ATTR_MSG => acknowledgement.text = attr.string().map(str::to_owned),
                NLMSGERR_ATTR_OFFS => {
                    let bytes = attr.value.try_into().ok();
                    acknowledgement.offset = bytes.map(u32::from_ne_bytes);
                }
                _ => {}
            }
        }
        Some(acknowledgement)
    }
}
