//! What a session asks the policy: one event a callback, borrowed from the read buffer.
#![forbid(unsafe_code)]

use std::borrow::Cow;

/// The callbacks that a policy may define, in the order of the dialogue. Names are those of the Lua table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Callback {
    /// `policy.connect(ctx, host, family, address, port)`
    Connect = 0,
    /// `policy.helo(ctx, name)`
    Helo,
    /// `policy.mail(ctx, sender, args)`
    Mail,
    /// `policy.rcpt(ctx, recipient, args)`
    Rcpt,
    /// `policy.data(ctx)`
    Data,
    /// `policy.header(ctx, name, value)`
    Header,
    /// `policy.eoh(ctx)`
    Eoh,
    /// `policy.body(ctx, chunk)`
    Body,
    /// `policy.eom(ctx)`
    Eom,
    /// `policy.abort(ctx)`
    Abort,
    /// `policy.close(ctx)`
    Close,
    /// `policy.unknown(ctx, command)`
    Unknown,
}

impl Callback {
    /// Every callback, in order.
    pub const ALL: [Callback; 12] = [
        Callback::Connect,
        Callback::Helo,
        Callback::Mail,
        Callback::Rcpt,
        Callback::Data,
        Callback::Header,
        Callback::Eoh,
        Callback::Body,
        Callback::Eom,
        Callback::Abort,
        Callback::Close,
        Callback::Unknown,
    ];

    /// Its name in the policy's table.
    pub fn name(self) -> &'static str {
        match self {
            Callback::Connect => "connect",
            Callback::Helo => "helo",
            Callback::Mail => "mail",
            Callback::Rcpt => "rcpt",
            Callback::Data => "data",
            Callback::Header => "header",
            Callback::Eoh => "eoh",
            Callback::Body => "body",
            Callback::Eom => "eom",
            Callback::Abort => "abort",
            Callback::Close => "close",
            Callback::Unknown => "unknown",
        }
    }

    /// The callback's bit in a set of callbacks.
    pub fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Address family of the SMTP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4; the policy sees "inet".
    Inet,
    /// IPv6; "inet6".
    Inet6,
    /// A local socket; "unix".
    Unix,
    /// Not known; "unknown", address and port are nil.
    Unknown,
}

impl Family {
    /// The word that the policy sees.
    pub fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Inet6 => "inet6",
            Family::Unix => "unix",
            Family::Unknown => "unknown",
        }
    }
}

/// One call of a callback with its arguments. Addresses are without angle brackets already, IPv6 in RFC 5952 form without tag,
/// header values without the one leading space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A new SMTP client. `address` and `port` are `None` for [`Family::Unknown`].
    Connect {
        /// Verified host name, or the address in brackets.
        host: &'a [u8],
        /// Address family.
        family: Family,
        /// Address text; borrowed except for IPv6, which is written anew.
        address: Option<Cow<'a, [u8]>>,
        /// Port, 0 when the MTA does not know it.
        port: Option<u16>,
    },
    /// HELO or EHLO with its name.
    Helo(&'a [u8]),
    /// MAIL FROM; a null sender is the empty string.
    Mail {
        /// The address.
        sender: &'a [u8],
        /// ESMTP words.
        args: Vec<&'a [u8]>,
    },
    /// RCPT TO.
    Rcpt {
        /// The address.
        recipient: &'a [u8],
        /// ESMTP words.
        args: Vec<&'a [u8]>,
    },
    /// DATA.
    Data,
    /// One header field.
    Header {
        /// Name without colon.
        name: &'a [u8],
        /// Value; folds are LF.
        value: &'a [u8],
    },
    /// End of headers.
    Eoh,
    /// A body chunk of 1 to 65535 bytes (or the agreed larger size).
    Body(&'a [u8]),
    /// End of message.
    Eom,
    /// The message was aborted.
    Abort,
    /// The connection ends.
    Close,
    /// An SMTP command that the MTA does not know.
    Unknown(&'a [u8]),
}

impl Event<'_> {
    /// Which callback this event calls.
    pub fn callback(&self) -> Callback {
        match self {
            Event::Connect { .. } => Callback::Connect,
            Event::Helo(_) => Callback::Helo,
            Event::Mail { .. } => Callback::Mail,
            Event::Rcpt { .. } => Callback::Rcpt,
            Event::Data => Callback::Data,
            Event::Header { .. } => Callback::Header,
            Event::Eoh => Callback::Eoh,
            Event::Body(_) => Callback::Body,
            Event::Eom => Callback::Eom,
            Event::Abort => Callback::Abort,
            Event::Close => Callback::Close,
            Event::Unknown(_) => Callback::Unknown,
        }
    }
}
