//! Texts of refusals: any code, enhanced code and lines. What is taken is exactly what may be; it arrives as it was meant, in the form that
//! Postfix and Sendmail read, and fits into one packet.

use pmx_milter::client::decode::{self, Reply};
use pmx_milter::milter::frame::{self, PAYLOAD_BYTES};
use pmx_milter::milter::reply_text::ReplyText;

/// Code, enhanced code and lines: each with its length before it, of an enhanced code one more, 0 being none.
fn parts(data: &[u8]) -> Option<(&[u8], Option<&[u8]>, Vec<Vec<u8>>)> {
    let ([code, xcode], rest) = data.split_first_chunk::<2>()?;
    let (code, rest) = rest.split_at_checked(usize::from(*code))?;
    let (xcode, mut rest) = match xcode.checked_sub(1) {
        None => (None, rest),
        Some(length) => {
            let (xcode, rest) = rest.split_at_checked(usize::from(length))?;
            (Some(xcode), rest)
        }
    };
    let mut lines = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (line, after) = after.split_at(length);
        lines.push(line.to_vec());
        rest = after;
    }
    Some((code, xcode, lines))
}

/// Three digits, 4 or 5 first (RFC 5321), and no other class in the enhanced code (RFC 3463).
fn may_be(code: &[u8], xcode: Option<&[u8]>, lines: &[Vec<u8>]) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_code = std::str::from_utf8(code)
        .is_ok_and(|code| code.len() == 3 && digits(code) && code.starts_with(['4', '5']));
    let is_xcode = xcode.is_none_or(|xcode| {
        let parts = std::str::from_utf8(xcode).map(|xcode| xcode.split('.').collect::<Vec<_>>());
        let Ok([class, subject, detail]) = parts.as_deref() else {
            return false;
        };
        let short = |part: &str| digits(part) && part.len() <= 3;
        class.as_bytes() == &code[..1.min(code.len())] && short(subject) && short(detail)
    });
    let is_line = |line: &Vec<u8>| line.len() <= 980 && !line.iter().any(u8::is_ascii_control);
    is_code && is_xcode && (1..=32).contains(&lines.len()) && lines.iter().all(is_line)
}

/// A line as it was meant: percent signs stand twice on the wire, for Sendmail takes the text for a format.
fn plain(line: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = line.iter();
    while let Some(byte) = rest.next() {
        plain.push(*byte);
        if *byte == b'%' {
            assert_eq!(rest.next(), Some(&b'%'), "a single percent sign");
        }
    }
    plain
}

/// The target.
pub fn reply_text(data: &[u8]) {
    let Some((code, xcode, lines)) = parts(data) else {
        return;
    };
    let reply = ReplyText::new(code, xcode, lines.clone());
    assert_eq!(reply.is_ok(), may_be(code, xcode, &lines), "{reply:?}");
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(reply.is_permanent(), code[0] == b'5');
    let mut payload = Vec::new();
    reply.encode(&mut payload);
    assert!(payload.len() <= PAYLOAD_BYTES);
    let mut wire = Vec::new();
    frame::put(&mut wire, b'y', &[&payload]);
    let Ok(Some((frame, used))) = frame::cut(&wire, PAYLOAD_BYTES) else {
        panic!("not a frame");
    };
    assert_eq!(used, wire.len());
    let Some(Reply::Text(text)) = decode::reply(frame) else {
        panic!("an MTA would not take it: {payload:?}");
    };
    // Postfix refuses a text whose fifth byte is a digit other than the code's first.
    let fifth = text.get(4).copied().unwrap_or(b' ');
    assert!(!fifth.is_ascii_digit() || fifth == code[0], "{payload:?}");
    let mut told: Vec<&[u8]> = Vec::new();
    let mut rest = &text[..];
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        told.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    told.push(rest);
    assert_eq!(told.len(), lines.len());
    for (number, (told, line)) in (1..).zip(told.iter().zip(&lines)) {
        let (head, words) = told.split_at(4);
        assert_eq!(&head[..3], code);
        assert_eq!(head[3], if number == lines.len() { b' ' } else { b'-' });
        let words = plain(words);
        // Without an enhanced code one may have been put in.
        let with = |xcode: &[u8]| [xcode, b" ", line].concat();
        let class = [code[0], b'.', b'7', b'.', b'1'];
        match xcode {
            Some(xcode) => assert_eq!(words, with(xcode)),
            None => assert!(words == *line || words == with(&class), "{payload:?}"),
        }
    }
}
