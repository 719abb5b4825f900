//! The name of a milter: it becomes part of file names, so that it is checked once and cannot be wrong afterwards.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// Most bytes of a name.
const NAME_BYTES: usize = 64;

/// A milter's name: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MilterName(String);

/// A text that cannot be a milter's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MilterNameError(String);

impl fmt::Display for MilterNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} cannot be the name of a milter: use 1 to {NAME_BYTES} of the characters A-Z a-z 0-9 _ . - and begin with a letter, a digit or _",
            self.0
        )
    }
}

impl std::error::Error for MilterNameError {}

impl FromStr for MilterName {
    type Err = MilterNameError;

    fn from_str(text: &str) -> Result<MilterName, MilterNameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let bytes = text.as_bytes();
        let valid = bytes.len() <= NAME_BYTES
            && bytes.first().is_some_and(|byte| word(*byte))
            && bytes
                .iter()
                .all(|byte| word(*byte) || matches!(byte, b'.' | b'-'));
        if valid {
            Ok(MilterName(text.to_owned()))
        } else {
            Err(MilterNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for MilterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_run_directory() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-x",
            ".x",
            "a b",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<MilterName>().is_err(), "{bad:?}");
        }
        for good in ["policy", "_x", "9", "a.b-c", &"x".repeat(64)] {
            assert!(good.parse::<MilterName>().is_ok(), "{good:?}");
        }
    }
}
