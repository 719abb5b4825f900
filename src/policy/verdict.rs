//! What a policy decides, and the changes that it asks for.
#![forbid(unsafe_code)]

use super::event::Callback;
use crate::milter::reply_text::ReplyText;

/// What a callback returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Take the message (or the connection) without more filtering.
    Accept,
    /// Refuse for good with the MTA's own text.
    Reject,
    /// Refuse for now with the MTA's own text.
    Tempfail,
    /// Tell the client 250 and throw the message away.
    Discard,
    /// `body` only: no more body for this message.
    Skip,
    /// Refuse with this code and text (`ctx:reply`).
    Reply(ReplyText),
}

impl Verdict {
    /// May this callback return this verdict? (milter-protocol: reply table; `connect` and `helo` know no discard, `abort` and
    /// `close` know nothing but continue.)
    pub fn allowed_at(&self, callback: Callback) -> bool {
        match callback {
            Callback::Abort | Callback::Close => matches!(self, Verdict::Continue),
            Callback::Connect | Callback::Helo | Callback::Unknown => {
                !matches!(self, Verdict::Discard | Verdict::Skip)
            }
            Callback::Body => true,
            Callback::Mail
            | Callback::Rcpt
            | Callback::Data
            | Callback::Header
            | Callback::Eoh
            | Callback::Eom => !matches!(self, Verdict::Skip),
        }
    }

    /// The name shown to operators.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Continue => "continue",
            Verdict::Accept => "accept",
            Verdict::Reject => "reject",
            Verdict::Tempfail => "tempfail",
            Verdict::Discard => "discard",
            Verdict::Skip => "skip",
            Verdict::Reply(text) if text.is_permanent() => "reject",
            Verdict::Reply(_) => "tempfail",
        }
    }
}

/// Why a callback gave no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A Lua error, or a verdict that the stage does not know.
    Error,
    /// `callback_timeout` or `eom_timeout` ran out.
    Timeout,
    /// `interpreter_memory_limit` was reached.
    Memory,
}

/// A callback that failed: the message gets TEMPFAIL and is counted under `error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// Message and traceback, for the log.
    pub text: String,
}

/// What came of a call.
pub type Outcome = Result<Verdict, Fault>;

/// A change to the message, asked for at eom. Addresses are without angle brackets; strings are checked already (no NUL, no lone CR/LF).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// `ctx:add_header(name, value)`
    AddHeader {
        /// Field name.
        name: Vec<u8>,
        /// Value without leading space; folds are LF + white space.
        value: Vec<u8>,
    },
    /// `ctx:insert_header(index, name, value)`
    InsertHeader {
        /// 0 is the top.
        index: u32,
        /// Field name.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
    },
    /// `ctx:change_header(name, nth, value)`; an empty value deletes (`ctx:delete_header`).
    ChangeHeader {
        /// 1 is the first of that name.
        nth: u32,
        /// Field name.
        name: Vec<u8>,
        /// New value.
        value: Vec<u8>,
    },
    /// `ctx:change_sender(address [, args])`
    ChangeSender {
        /// New address, "" for the null sender.
        address: Vec<u8>,
        /// ESMTP words joined by a space.
        args: Option<Vec<u8>>,
    },
    /// `ctx:add_recipient(address [, args])`
    AddRecipient {
        /// Address.
        address: Vec<u8>,
        /// ESMTP words joined by a space.
        args: Option<Vec<u8>>,
    },
    /// `ctx:delete_recipient(address)`: sent exactly as RCPT gave it when it is one of the message's recipients.
    DeleteRecipient(Vec<u8>),
    /// `ctx:replace_body(bytes)`
    ReplaceBody(Vec<u8>),
    /// `ctx:quarantine(reason)`
    Quarantine(Vec<u8>),
}

impl Edit {
    /// The action bit (SMFIF) that the MTA must have offered.
    pub fn action(&self) -> u32 {
        match self {
            Edit::AddHeader { .. } | Edit::InsertHeader { .. } => 0x01,
            Edit::ReplaceBody(_) => 0x02,
            Edit::AddRecipient { args: None, .. } => 0x04,
            Edit::DeleteRecipient(_) => 0x08,
            Edit::ChangeHeader { .. } => 0x10,
            Edit::Quarantine(_) => 0x20,
            Edit::ChangeSender { .. } => 0x40,
            Edit::AddRecipient { args: Some(_), .. } => 0x80,
        }
    }
}
