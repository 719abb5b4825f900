//! Replies as an MTA reads them, strictly: what an MTA would break off at is an error here.
#![forbid(unsafe_code)]

use crate::milter::frame::Frame;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `O`: version, actions, steps, macro lists by stage number.
    Negotiated {
        /// Version of the dialogue.
        version: u32,
        /// Actions that may follow.
        actions: u32,
        /// Steps that are changed.
        steps: u32,
        /// Macro names asked for.
        macros: Vec<(u32, Vec<u8>)>,
    },
    /// `c`
    Continue,
    /// `a`
    Accept,
    /// `r`
    Reject,
    /// `t`
    Tempfail,
    /// `d`
    Discard,
    /// `s`
    Skip,
    /// `p`
    Progress,
    /// `y`: an SMTP reply, percent signs doubled, without its NUL.
    Text(Vec<u8>),
    /// A modification.
    Change(Change),
}

/// One modification, as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `h`: name, value.
    AddHeader(Vec<u8>, Vec<u8>),
    /// `i`: index, name, value.
    InsertHeader(u32, Vec<u8>, Vec<u8>),
    /// `m`: number among those of that name, name, value; an empty value deletes.
    ChangeHeader(u32, Vec<u8>, Vec<u8>),
    /// `b`: a piece of the new body.
    BodyChunk(Vec<u8>),
    /// `+` and `2`: address, ESMTP words.
    AddRecipient(Vec<u8>, Option<Vec<u8>>),
    /// `-`
    DeleteRecipient(Vec<u8>),
    /// `e`: address, ESMTP words.
    ChangeSender(Vec<u8>, Option<Vec<u8>>),
    /// `q`: reason.
    Quarantine(Vec<u8>),
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = rest[..end].to_vec();
    *rest = &rest[end + 1..];
    Some(text)
}

fn word(rest: &mut &[u8]) -> Option<u32> {
    let (word, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*word))
}

/// Reads a reply. `None`: an MTA would not take it.
pub fn reply(frame: Frame<'_>) -> Option<Reply> {
    let mut rest = frame.payload;
    let rest = &mut rest;
    let reply = match frame.code {
        b'O' => {
            let (version, actions, steps) = (word(rest)?, word(rest)?, word(rest)?);
            let mut macros = Vec::new();
            while !rest.is_empty() {
                macros.push((word(rest)?, text(rest)?));
            }
            Reply::Negotiated {
                version,
                actions,
                steps,
                macros,
            }
        }
        b'c' => Reply::Continue,
        b'a' => Reply::Accept,
        b'r' => Reply::Reject,
        b't' => Reply::Tempfail,
        b'd' => Reply::Discard,
        b's' => Reply::Skip,
        b'p' => Reply::Progress,
        b'y' => {
            let text = text(rest)?;
            // A code and something behind it.
            if text.len() < 4 || !matches!(text.first(), Some(b'4' | b'5')) {
                return None;
            }
            Reply::Text(text)
        }
        b'h' => Reply::Change(Change::AddHeader(text(rest)?, text(rest)?)),
        b'i' => Reply::Change(Change::InsertHeader(word(rest)?, text(rest)?, text(rest)?)),
        b'm' => Reply::Change(Change::ChangeHeader(word(rest)?, text(rest)?, text(rest)?)),
        b'b' => {
            let chunk = rest.to_vec();
            *rest = &[];
            Reply::Change(Change::BodyChunk(chunk))
        }
        b'+' => Reply::Change(Change::AddRecipient(text(rest)?, None)),
        b'2' => Reply::Change(Change::AddRecipient(text(rest)?, text(rest))),
        b'-' => Reply::Change(Change::DeleteRecipient(text(rest)?)),
        b'e' => Reply::Change(Change::ChangeSender(text(rest)?, text(rest))),
        b'q' => Reply::Change(Change::Quarantine(text(rest)?)),
        _ => return None,
    };
    rest.is_empty().then_some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_as_strictly_as_postfix_reads_them() {
        let read = |code, payload| reply(Frame { code, payload });
        assert_eq!(read(b'c', b""), Some(Reply::Continue));
        assert_eq!(read(b'c', b"x"), None);
        assert_eq!(
            read(b'y', b"550 5.7.1 no\0"),
            Some(Reply::Text(b"550 5.7.1 no".to_vec()))
        );
        assert_eq!(read(b'y', b"550 5.7.1 no"), None, "its NUL is missing");
        assert_eq!(
            read(b'i', b"\0\0\0\x01X\0y\0"),
            Some(Reply::Change(Change::InsertHeader(
                1,
                b"X".to_vec(),
                b"y".to_vec()
            )))
        );
        assert_eq!(
            read(b'O', b"\0\0\0\x06\0\0\0\x11\0\0\x04\0\0\0\0\x02i\0"),
            Some(Reply::Negotiated {
                version: 6,
                actions: 0x11,
                steps: 0x400,
                macros: vec![(2, b"i".to_vec())]
            })
        );
        assert_eq!(read(b'f', b""), None);
    }
}
