//! What is known of a session and its message: filled by the session, read by the policy through `ctx`.
#![forbid(unsafe_code)]

use super::event::{Callback, Family};
use super::verdict::Edit;
use crate::milter::command::without_brackets;
use crate::milter::macros::Macros;

/// The SMTP client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Verified host name, or the address in brackets.
    pub host: Box<[u8]>,
    /// Address family.
    pub family: Family,
    /// Address text; `None` when unknown.
    pub address: Option<Box<[u8]>>,
    /// Port; `None` when the family is unknown.
    pub port: Option<u16>,
}

/// One recipient that this policy has not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    raw: Box<[u8]>,
}

impl Recipient {
    /// A recipient as RCPT gave it.
    pub fn new(raw: &[u8]) -> Recipient {
        Recipient { raw: raw.into() }
    }

    /// Exactly as RCPT gave it: a deletion needs these bytes.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Without the enclosing angle brackets.
    pub fn address(&self) -> &[u8] {
        without_brackets(&self.raw)
    }
}

/// Header fields in order, all in one run of bytes: a message has dozens, and two allocations for each would cost more than all the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// For each field: length of name and of value, four bytes each, name, value.
    bytes: Vec<u8>,
    count: usize,
}

/// What a field costs beside its bytes.
const FIELD_OVERHEAD: usize = 8;

impl Headers {
    /// Appends a field. A name or value of 4 GiB and more, which no frame can carry, is left out.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let (Ok(name_length), Ok(value_length)) =
            (u32::try_from(name.len()), u32::try_from(value.len()))
        else {
            return;
        };
        if self.bytes.is_empty() {
            // What the headers of a common message take.
            self.bytes.reserve(1024);
        }
        self.bytes.extend_from_slice(&name_length.to_ne_bytes());
        self.bytes.extend_from_slice(&value_length.to_ne_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.count += 1;
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.count
    }

    /// No field yet?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that are kept, some for each field counted in.
    pub fn kept_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that one more field would add to [`Headers::kept_bytes`].
    pub fn cost(name: &[u8], value: &[u8]) -> usize {
        FIELD_OVERHEAD + name.len() + value.len()
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let name_length = take_length(&mut rest)?;
            let value_length = take_length(&mut rest)?;
            let (name, after) = rest.split_at_checked(name_length)?;
            let (value, after) = after.split_at_checked(value_length)?;
            rest = after;
            Some(Header { name, value })
        })
    }
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    usize::try_from(u32::from_ne_bytes(*length)).ok()
}

/// One header field as the MTA gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name without colon.
    pub name: &'a [u8],
    /// Value without the one leading space; folds are LF.
    pub value: &'a [u8],
}

/// What is known of the message in progress. Only what the policy collects is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Sender without brackets; `None` when it is not collected.
    pub sender: Option<Box<[u8]>>,
    /// Recipients not refused by this policy; `None` when they are not collected.
    pub recipients: Option<Vec<Recipient>>,
    /// Header fields in order; empty when they are not collected.
    pub headers: Headers,
    /// The body so far; empty when it is not collected.
    pub body: Vec<u8>,
    /// Edits asked for so far.
    pub edits: Vec<Edit>,
}

/// What is known of a session. Kept small: it exists for each idle connection.
#[derive(Debug, Default)]
pub struct Facts {
    /// The client; `None` when it is not collected.
    pub client: Option<Box<Client>>,
    /// The HELO name; `None` when it is not collected or not yet given.
    pub helo: Option<Box<[u8]>>,
    /// Macros by stage.
    pub macros: Macros,
    /// Action bits that the MTA offered and we agreed: what edits are possible.
    pub actions: u32,
    /// The callback that runs now; edits are possible in [`Callback::Eom`] only.
    pub callback: Option<Callback>,
    /// The message in progress.
    pub message: Option<Box<Message>>,
}

impl Facts {
    /// The queue id: macro `i`, once the MTA has told it.
    pub fn queue_id(&self) -> Option<&[u8]> {
        self.macros.get(b"i").filter(|id| !id.is_empty())
    }
}
