//! Commands, MTA to filter: parsed from a frame without copying. Names of the codes are libmilter's `SMFIC_*`.
//!
//! What is longer than expected is ignored, what is shorter is an error that closes the connection.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::Ipv6Addr;

use super::frame::Frame;

/// How the SMTP client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer<'a> {
    /// IPv4: port (0 unknown) and dotted quad.
    Inet(u16, &'a [u8]),
    /// IPv6: port and address; `None` when the text is no address.
    Inet6(u16, Option<Ipv6Addr>),
    /// UNIX socket: its path.
    Unix(&'a [u8]),
    /// Unknown family.
    Unknown,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `O`: version, actions, steps.
    Negotiate(u32, u32, u32),
    /// `D`: the command they belong to, and `name NUL value NUL ...`.
    Macros(u8, &'a [u8]),
    /// `C`: host name and peer.
    Connect(&'a [u8], Peer<'a>),
    /// `H`: HELO name.
    Helo(&'a [u8]),
    /// `M`: address as given, ESMTP words.
    Mail(&'a [u8], Vec<&'a [u8]>),
    /// `R`: address as given, ESMTP words.
    Rcpt(&'a [u8], Vec<&'a [u8]>),
    /// `T`
    Data,
    /// `L`: name, value.
    Header(&'a [u8], &'a [u8]),
    /// `N`
    Eoh,
    /// `B`; may be empty, though no MTA sends it so.
    Body(&'a [u8]),
    /// `E`, with a last body chunk or none.
    Eom(&'a [u8]),
    /// `U`: an SMTP command that the MTA does not know.
    Unknown(&'a [u8]),
    /// `A`
    Abort,
    /// `Q`
    Quit,
    /// `K`: quit, a new SMTP client follows.
    QuitNewConnection,
}

/// A frame that is no command: the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// A code that the protocol does not have.
    UnknownCode(u8),
    /// The payload ends too early.
    Short(u8),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::UnknownCode(code) => {
                write!(f, "unknown command '{}'", code.escape_ascii())
            }
            CommandError::Short(code) => {
                write!(f, "command '{}' ends too early", code.escape_ascii())
            }
        }
    }
}

impl std::error::Error for CommandError {}

/// Takes one C string off the front. `None` when its NUL is missing.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = &rest[..end];
    *rest = &rest[end + 1..];
    Some(text)
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let field = bytes.get(index * 4..index * 4 + 4)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

fn envelope(mut rest: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let address = string(&mut rest)?;
    let mut words = Vec::new();
    while let Some(text) = string(&mut rest) {
        words.push(text);
    }
    Some((address, words))
}

fn connect(mut rest: &[u8]) -> Option<Command<'_>> {
    let host = string(&mut rest)?;
    let (family, rest) = rest.split_first()?;
    if *family == b'U' {
        return Some(Command::Connect(host, Peer::Unknown));
    }
    let (port, mut rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    let address = string(&mut rest)?;
    let peer = match family {
        b'4' => Peer::Inet(port, address),
        b'6' => Peer::Inet6(port, ipv6(address)),
        b'L' => Peer::Unix(address),
        _ => Peer::Unknown,
    };
    Some(Command::Connect(host, peer))
}

/// Postfix writes the address bare, Sendmail with `IPv6:` in front and often uncompressed.
fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    let bare = match text.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case(b"IPv6:") => rest,
        _ => text,
    };
    std::str::from_utf8(bare).ok()?.parse().ok()
}

/// An address without one enclosing pair of angle brackets, if it has one.
pub fn without_brackets(address: &[u8]) -> &[u8] {
    address
        .strip_prefix(b"<")
        .and_then(|rest| rest.strip_suffix(b">"))
        .unwrap_or(address)
}

/// Parses a frame.
///
/// # Errors
/// When the code is unknown or the payload ends too early.
pub fn parse<'a>(frame: Frame<'a>) -> Result<Command<'a>, CommandError> {
    let mut rest = frame.payload;
    let command = match frame.code {
        b'O' => match (word(rest, 0), word(rest, 1), word(rest, 2)) {
            (Some(version), Some(actions), Some(steps)) => {
                Some(Command::Negotiate(version, actions, steps))
            }
            _ => None,
        },
        b'D' => rest
            .split_first()
            .map(|(code, strings)| Command::Macros(*code, strings)),
        b'C' => connect(rest),
        b'H' => string(&mut rest).map(Command::Helo),
        b'M' => envelope(rest).map(|(sender, words)| Command::Mail(sender, words)),
        b'R' => envelope(rest).map(|(recipient, words)| Command::Rcpt(recipient, words)),
        b'T' => Some(Command::Data),
        b'L' => match (string(&mut rest), string(&mut rest)) {
            (Some(name), Some(value)) => Some(Command::Header(name, value)),
            _ => None,
        },
        b'N' => Some(Command::Eoh),
        b'B' => Some(Command::Body(rest)),
        b'E' => Some(Command::Eom(rest)),
        b'U' => string(&mut rest).map(Command::Unknown),
        b'A' => Some(Command::Abort),
        b'Q' => Some(Command::Quit),
        b'K' => Some(Command::QuitNewConnection),
        code => return Err(CommandError::UnknownCode(code)),
    };
    command.ok_or(CommandError::Short(frame.code))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(code: u8, payload: &[u8]) -> Result<Command<'_>, CommandError> {
        parse(Frame { code, payload })
    }

    #[test]
    fn connect_of_each_family_is_parsed() {
        assert_eq!(
            parsed(b'C', b"[192.0.2.1]\x004\xe0\xc4192.0.2.1\0"),
            Ok(Command::Connect(
                b"[192.0.2.1]",
                Peer::Inet(57_540, b"192.0.2.1")
            ))
        );
        let address = "2001:db8::1".parse().ok();
        assert_eq!(
            parsed(b'C', b"h\x006\0\x192001:db8::1\0"),
            Ok(Command::Connect(b"h", Peer::Inet6(25, address)))
        );
        assert_eq!(
            parsed(b'C', b"h\x006\0\x19IPv6:2001:db8:0:0:0:0:0:1\0"),
            Ok(Command::Connect(b"h", Peer::Inet6(25, address)))
        );
        assert_eq!(
            parsed(b'C', b"localhost\0L\0\0/s\0"),
            Ok(Command::Connect(b"localhost", Peer::Unix(b"/s")))
        );
        assert_eq!(
            parsed(b'C', b"localhost\0U"),
            Ok(Command::Connect(b"localhost", Peer::Unknown))
        );
    }

    #[test]
    fn envelope_keeps_the_bytes_and_the_words() {
        assert_eq!(
            parsed(b'M', b"<a@b.example>\0SIZE=100\0"),
            Ok(Command::Mail(b"<a@b.example>", vec![b"SIZE=100"]))
        );
        assert_eq!(parsed(b'M', b"\0"), Ok(Command::Mail(b"", vec![])));
        assert_eq!(
            parsed(b'L', b"X\0a\n\tb\0"),
            Ok(Command::Header(b"X", b"a\n\tb"))
        );
        assert_eq!(parsed(b'E', b"hi\r\n"), Ok(Command::Eom(b"hi\r\n")));
    }

    #[test]
    fn one_pair_of_brackets_is_taken_off() {
        for (raw, bare) in [
            ("<a@b>", "a@b"),
            ("<>", ""),
            ("", ""),
            ("a@b", "a@b"),
            ("<<a@b>>", "<a@b>"),
            ("<a@b", "<a@b"),
            ("<", "<"),
        ] {
            assert_eq!(without_brackets(raw.as_bytes()), bare.as_bytes());
        }
    }

    #[test]
    fn short_and_unknown_commands_are_errors() {
        for (code, payload) in [
            (b'O', &b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff"[..]),
            (b'C', b"host"),
            (b'C', b"host\0"),
            (b'C', b"host\x004\0"),
            (b'C', b"host\x004\0\x191.2.3.4"),
            (b'D', b""),
            (b'H', b"no-nul"),
            (b'M', b""),
            (b'R', b"no-nul"),
            (b'L', b"name\0value"),
            (b'U', b""),
        ] {
            assert_eq!(
                parsed(code, payload),
                Err(CommandError::Short(code)),
                "{} {payload:?}",
                code as char
            );
        }
        for code in [0, b'X', b'o', 0x80, 0xff] {
            assert_eq!(parsed(code, b""), Err(CommandError::UnknownCode(code)));
        }
    }
}
