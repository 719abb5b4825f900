//! What is known of a session and its message: filled by the session, read by the policy through `ctx`.
#![forbid(unsafe_code)]

use super::event::{Callback, Family};
use super::verdict::Edit;
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
    /// Exactly as RCPT gave it: a deletion needs these bytes.
    pub raw: Box<[u8]>,
    /// Without the enclosing angle brackets.
    pub address: Box<[u8]>,
}

/// One header field as the MTA gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name without colon.
    pub name: Box<[u8]>,
    /// Value without the one leading space; folds are LF.
    pub value: Box<[u8]>,
}

/// What is known of the message in progress. Only what the policy collects is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Sender without brackets; `None` when it is not collected.
    pub sender: Option<Box<[u8]>>,
    /// Recipients not refused by this policy; `None` when they are not collected.
    pub recipients: Option<Vec<Recipient>>,
    /// Header fields in order.
    pub headers: Vec<Header>,
    /// The body so far.
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
