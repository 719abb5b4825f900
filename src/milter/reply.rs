//! Replies, filter to MTA: final replies, modifications and progress, appended to one buffer that leaves in one write.
//!
//! A modification and its final reply in two small writes cost 43 ms over TCP (Nagle against delayed acknowledgement): hence one buffer.
//! Callers have checked names, values and addresses (no NUL, no lone CR or LF).
#![forbid(unsafe_code)]

use super::frame;
use super::reply_text::ReplyText;

/// Largest payload of a body chunk (libmilter, `MILTER_CHUNK_SIZE`).
const CHUNK_BYTES: usize = 65_535;

/// Replies without payload. Postfix breaks off when one of them carries data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plain {
    /// `SMFIR_CONTINUE`
    Continue = b'c',
    /// `SMFIR_ACCEPT`
    Accept = b'a',
    /// `SMFIR_REJECT`
    Reject = b'r',
    /// `SMFIR_TEMPFAIL`
    Tempfail = b't',
    /// `SMFIR_DISCARD`
    Discard = b'd',
    /// `SMFIR_SKIP`, after a body chunk only.
    Skip = b's',
    /// `SMFIR_PROGRESS`, at end of message only: Sendmail takes it for a broken filter elsewhere.
    Progress = b'p',
}

/// Appends a reply without payload.
pub fn plain(out: &mut Vec<u8>, reply: Plain) {
    frame::put(out, reply as u8, &[]);
}

/// Appends a refusal with its own code and text.
pub fn text(out: &mut Vec<u8>, text: &ReplyText) {
    let mut payload = Vec::new();
    text.encode(&mut payload);
    frame::put(out, b'y', &[&payload]);
}

/// Whether the MTA and we agreed that header values keep their leading space: then we write it ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadingSpace {
    /// The MTA writes `name: value`.
    MtaAdds,
    /// `SMFIP_HDR_LEADSPC`: the MTA writes `name:value`.
    WeAdd,
}

impl LeadingSpace {
    fn bytes(self) -> &'static [u8] {
        match self {
            LeadingSpace::MtaAdds => b"",
            LeadingSpace::WeAdd => b" ",
        }
    }
}

/// Appends "add this header at the end".
pub fn add_header(out: &mut Vec<u8>, space: LeadingSpace, name: &[u8], value: &[u8]) {
    frame::put(out, b'h', &[name, b"\0", space.bytes(), value, b"\0"]);
}

/// Appends "insert this header at `index`", 0 being above everything.
pub fn insert_header(
    out: &mut Vec<u8>,
    space: LeadingSpace,
    index: u32,
    name: &[u8],
    value: &[u8],
) {
    frame::put(
        out,
        b'i',
        &[
            &index.to_be_bytes(),
            name,
            b"\0",
            space.bytes(),
            value,
            b"\0",
        ],
    );
}

/// Appends "change the `nth` header of that name" (from 1); an empty value deletes it and never gets a space.
pub fn change_header(out: &mut Vec<u8>, space: LeadingSpace, nth: u32, name: &[u8], value: &[u8]) {
    let space: &[u8] = if value.is_empty() { b"" } else { space.bytes() };
    frame::put(
        out,
        b'm',
        &[&nth.to_be_bytes(), name, b"\0", space, value, b"\0"],
    );
}

/// Appends "this is the sender now"; the address comes without angle brackets, "" is the null sender.
pub fn change_sender(out: &mut Vec<u8>, address: &[u8], args: Option<&[u8]>) {
    match args {
        Some(args) => frame::put(out, b'e', &[b"<", address, b">\0", args, b"\0"]),
        None => frame::put(out, b'e', &[b"<", address, b">\0"]),
    }
}

/// Appends "add this recipient"; the address comes without angle brackets.
pub fn add_recipient(out: &mut Vec<u8>, address: &[u8], args: Option<&[u8]>) {
    match args {
        Some(args) => frame::put(out, b'2', &[b"<", address, b">\0", args, b"\0"]),
        None => frame::put(out, b'+', &[b"<", address, b">\0"]),
    }
}

/// Appends "delete this recipient", which must be given exactly as RCPT gave it: Postfix compares bytes.
pub fn delete_recipient(out: &mut Vec<u8>, raw: &[u8]) {
    frame::put(out, b'-', &[raw, b"\0"]);
}

/// Appends the whole new body, its chunks together: Postfix refuses the message when something comes between two of them.
pub fn replace_body(out: &mut Vec<u8>, body: &[u8]) {
    if body.is_empty() {
        frame::put(out, b'b', &[]);
    }
    for chunk in body.chunks(CHUNK_BYTES) {
        frame::put(out, b'b', &[chunk]);
    }
}

/// Appends "hold the message in quarantine"; a final reply must still follow.
pub fn quarantine(out: &mut Vec<u8>, reason: &[u8]) {
    frame::put(out, b'q', &[reason, b"\0"]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn framed(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        let length = u32::from_be_bytes(out[..4].try_into().unwrap());
        assert_eq!(length as usize, out.len() - 4);
        out.split_off(4)
    }

    #[test]
    fn modifications_have_the_bytes_that_the_mtas_read() {
        use LeadingSpace::{MtaAdds, WeAdd};
        assert_eq!(
            framed(|out| add_header(out, MtaAdds, b"X-A", b"b")),
            b"hX-A\0b\0"
        );
        assert_eq!(
            framed(|out| add_header(out, WeAdd, b"X-A", b"b")),
            b"hX-A\0 b\0"
        );
        assert_eq!(
            framed(|out| insert_header(out, MtaAdds, 0, b"X-A", b"b")),
            b"i\0\0\0\0X-A\0b\0"
        );
        assert_eq!(
            framed(|out| change_header(out, MtaAdds, 1, b"Subject", b"b")),
            b"m\0\0\0\x01Subject\0b\0"
        );
        assert_eq!(
            framed(|out| change_header(out, WeAdd, 1, b"Subject", b"")),
            b"m\0\0\0\x01Subject\0\0"
        );
        assert_eq!(
            framed(|out| change_sender(out, b"n@b.example", Some(b"RET=HDRS"))),
            b"e<n@b.example>\0RET=HDRS\0"
        );
        assert_eq!(framed(|out| change_sender(out, b"", None)), b"e<>\0");
        assert_eq!(
            framed(|out| add_recipient(out, b"x@b.example", None)),
            b"+<x@b.example>\0"
        );
        assert_eq!(
            framed(|out| add_recipient(out, b"x@b.example", Some(b"NOTIFY=NEVER"))),
            b"2<x@b.example>\0NOTIFY=NEVER\0"
        );
        assert_eq!(
            framed(|out| delete_recipient(out, b"<x@b.example>")),
            b"-<x@b.example>\0"
        );
        assert_eq!(framed(|out| quarantine(out, b"why")), b"qwhy\0");
        assert_eq!(framed(|out| plain(out, Plain::Progress)), b"p");
    }

    #[test]
    fn a_large_body_goes_in_whole_chunks_and_an_empty_one_in_one() {
        assert_eq!(framed(|out| replace_body(out, b"")), b"b");
        let mut out = Vec::new();
        replace_body(&mut out, &vec![b'x'; CHUNK_BYTES + 1]);
        let (first, used) = frame::cut(&out, frame::PAYLOAD_BYTES).unwrap().unwrap();
        let (second, _) = frame::cut(&out[used..], frame::PAYLOAD_BYTES)
            .unwrap()
            .unwrap();
        assert_eq!(
            (
                first.code,
                first.payload.len(),
                second.code,
                second.payload.len()
            ),
            (b'b', CHUNK_BYTES, b'b', 1)
        );
    }

    #[test]
    fn a_refusal_carries_its_text() {
        let refusal = ReplyText::new(b"550", Some(b"5.7.1"), vec![b"no".to_vec()]).unwrap();
        assert_eq!(framed(|out| text(out, &refusal)), b"y550 5.7.1 no\0");
    }
}
