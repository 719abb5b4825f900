//! The SMTP text of a refusal (`y`): code, enhanced code, 1 to 32 lines. Checked here once, since a bare code or a missing NUL
//! makes Postfix answer 451 or send stale memory, and Sendmail uses the text as a format.
#![forbid(unsafe_code)]

use std::fmt;

/// Most lines of a reply (libmilter, `smfi_setmlreply`).
const MOST_LINES: usize = 32;
/// Most bytes of a line (libmilter, `MAXREPLYLEN`).
const LINE_BYTES: usize = 980;

/// A checked reply text. Lines are plain: the encoder doubles percent signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyText {
    code: u16,
    xcode: Option<Box<[u8]>>,
    lines: Vec<Vec<u8>>,
}

/// Why a reply text is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyTextError {
    /// Not three digits beginning with 4 or 5.
    Code,
    /// Not C.S.D of the code's class.
    Xcode,
    /// No line or more than 32.
    LineCount(usize),
    /// Line (counted from 1) too long or with control bytes.
    Line(usize),
}

impl fmt::Display for ReplyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyTextError::Code => f.write_str("the code must be three digits that begin with 4 or 5, such as \"550\""),
            ReplyTextError::Xcode => {
                f.write_str("the enhanced code must be of the code's class, such as \"5.7.1\" with \"550\", or nil")
            }
            ReplyTextError::LineCount(count) => write!(f, "a reply has 1 to {MOST_LINES} lines, not {count}"),
            ReplyTextError::Line(line) => {
                write!(f, "line {line} is longer than {LINE_BYTES} bytes or holds a control byte; give each line by itself")
            }
        }
    }
}

impl std::error::Error for ReplyTextError {}

impl ReplyText {
    /// Checks code, enhanced code and lines.
    ///
    /// # Errors
    /// See [`ReplyTextError`].
    pub fn new(
        code: &[u8],
        xcode: Option<&[u8]>,
        lines: Vec<Vec<u8>>,
    ) -> Result<ReplyText, ReplyTextError> {
        let [
            class @ (b'4' | b'5'),
            tens @ b'0'..=b'9',
            ones @ b'0'..=b'9',
        ] = code
        else {
            return Err(ReplyTextError::Code);
        };
        let digit = |byte: u8| u16::from(byte - b'0');
        if xcode.is_some_and(|xcode| !is_enhanced(*class, xcode)) {
            return Err(ReplyTextError::Xcode);
        }
        if lines.is_empty() || lines.len() > MOST_LINES {
            return Err(ReplyTextError::LineCount(lines.len()));
        }
        if let Some(index) = lines.iter().position(|line| {
            line.len() > LINE_BYTES || line.iter().any(|byte| *byte < b' ' || *byte == 0x7f)
        }) {
            return Err(ReplyTextError::Line(index + 1));
        }
        // Postfix refuses a text whose fifth byte is a digit other than the code's first (milter8.c), and answers 451 instead: the refusal
        // would become one for now.
        let default = [*class, b'.', b'7', b'.', b'1'];
        let looks_wrong = |byte: &u8| byte.is_ascii_digit() && byte != class;
        let xcode = match xcode {
            None if lines[0].first().is_some_and(looks_wrong) => Some(&default[..]),
            given => given,
        };
        let code = digit(*class) * 100 + digit(*tens) * 10 + digit(*ones);
        Ok(ReplyText {
            code,
            xcode: xcode.map(Into::into),
            lines,
        })
    }

    /// 5xx?
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// Appends the payload of `y`: lines joined by CR LF, percent signs doubled, the final NUL that Postfix needs.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let last = self.lines.len() - 1;
        for (index, line) in self.lines.iter().enumerate() {
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(if index == last { b' ' } else { b'-' });
            if let Some(xcode) = &self.xcode {
                out.extend_from_slice(xcode);
                out.push(b' ');
            }
            for byte in line {
                out.push(*byte);
                if *byte == b'%' {
                    out.push(b'%');
                }
            }
            out.extend_from_slice(if index == last { b"\0" } else { b"\r\n" });
        }
    }
}

/// `C.S.D` with C the class and S and D of 1 to 3 digits (RFC 3463 section 2).
fn is_enhanced(class: u8, xcode: &[u8]) -> bool {
    let mut parts = xcode.split(|byte| *byte == b'.');
    let number = |part: Option<&[u8]>| {
        part.is_some_and(|part| {
            (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit)
        })
    };
    parts.next() == Some(&[class])
        && number(parts.next())
        && number(parts.next())
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn encoded(code: &str, xcode: Option<&str>, lines: &[&str]) -> Vec<u8> {
        let lines = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        let mut out = Vec::new();
        ReplyText::new(code.as_bytes(), xcode.map(str::as_bytes), lines)
            .unwrap()
            .encode(&mut out);
        out
    }

    #[test]
    fn one_line_and_several_lines_are_encoded_as_the_mtas_read_them() {
        assert_eq!(encoded("550", Some("5.7.1"), &["no"]), b"550 5.7.1 no\0");
        assert_eq!(
            encoded("550", Some("5.7.1"), &["a", "b"]),
            b"550-5.7.1 a\r\n550 5.7.1 b\0"
        );
        assert_eq!(encoded("451", None, &["full: 100%"]), b"451 full: 100%%\0");
        assert_eq!(encoded("421", None, &[""]), b"421 \0");
    }

    #[test]
    fn a_line_that_begins_with_another_digit_gets_an_enhanced_code_before_it() {
        assert_eq!(
            encoded("550", None, &["192.0.2.1 is listed", "2"]),
            b"550-5.7.1 192.0.2.1 is listed\r\n550 5.7.1 2\0"
        );
        assert_eq!(encoded("450", None, &["5 times"]), b"450 4.7.1 5 times\0");
        assert_eq!(encoded("550", None, &["5 times"]), b"550 5 times\0");
        assert_eq!(encoded("550", None, &["no", "2"]), b"550-no\r\n550 2\0");
    }

    #[test]
    fn wrong_texts_are_refused() {
        let line = || vec![b"x".to_vec()];
        for code in ["", "250", "55", "5500", "5x0", "650"] {
            assert_eq!(
                ReplyText::new(code.as_bytes(), None, line()),
                Err(ReplyTextError::Code),
                "{code}"
            );
        }
        for xcode in ["4.7.1", "5.7", "5.7.1.1", "5..1", "5.7.1234", "5.a.1"] {
            assert_eq!(
                ReplyText::new(b"550", Some(xcode.as_bytes()), line()),
                Err(ReplyTextError::Xcode),
                "{xcode}"
            );
        }
        assert_eq!(
            ReplyText::new(b"550", None, vec![]),
            Err(ReplyTextError::LineCount(0))
        );
        assert_eq!(
            ReplyText::new(b"550", None, vec![vec![]; 33]),
            Err(ReplyTextError::LineCount(33))
        );
        assert_eq!(
            ReplyText::new(b"550", None, vec![b"a\r\nb".to_vec()]),
            Err(ReplyTextError::Line(1))
        );
        assert_eq!(
            ReplyText::new(b"550", None, vec![vec![b'x'; 981]]),
            Err(ReplyTextError::Line(1))
        );
    }
}
