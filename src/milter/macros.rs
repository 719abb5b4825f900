//! The macros of a session, by the stage they came with: a new packet replaces its stage, look-ups go from the newest stage back.
#![forbid(unsafe_code)]

/// Stages that carry macros, in the order of the dialogue; the code is that of the command that the macros belong to.
const STAGES: [u8; 7] = *b"CHMRTNE";
/// Index of MAIL in the stages: a message's macros begin here.
const MAIL: usize = 2;

/// Macros as the MTA sent them: the raw name/value strings of each stage. An idle session keeps two short texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Macros {
    stages: [Box<[u8]>; 7],
}

/// `{x}` and `x` are the same name.
fn bare(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"))
        .unwrap_or(name)
}

impl Macros {
    /// Stores the strings that came for a command; an unknown command is ignored (libmilter does the same).
    pub fn store(&mut self, command: u8, strings: &[u8]) {
        if let Some(stage) = STAGES.iter().position(|code| *code == command) {
            self.stages[stage] = strings.into();
        }
    }

    /// A command arrived: macros of later stages belong to an earlier message.
    pub fn reach(&mut self, command: u8) {
        if let Some(stage) = STAGES.iter().position(|code| *code == command) {
            self.forget_from(stage + 1);
        }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.stages.iter().map(|strings| strings.len()).sum()
    }

    /// The message ended or was aborted.
    pub fn forget_message(&mut self) {
        self.forget_from(MAIL);
    }

    /// A new SMTP client follows.
    pub fn forget_all(&mut self) {
        self.forget_from(0);
    }

    fn forget_from(&mut self, first: usize) {
        for stage in self.stages.iter_mut().skip(first) {
            if !stage.is_empty() {
                *stage = Box::default();
            }
        }
    }

    /// The value of a macro; `x` and `{x}` are the same name, braces are optional. A defined empty macro is `Some("")`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let wanted = bare(name);
        self.stages
            .iter()
            .rev()
            .find_map(|strings| find(strings, wanted))
    }
}

/// Looks one name up in `name NUL value NUL ...`. An odd last name has an empty value; a text without its NUL is ignored.
fn find<'a>(strings: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let strings = strings.strip_suffix(b"\0")?;
    let mut parts = strings.split(|byte| *byte == 0);
    while let Some(name) = parts.next() {
        let value = parts.next().unwrap_or(b"");
        if bare(name) == wanted && !wanted.is_empty() {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stage_wins_and_braces_are_optional() {
        let mut macros = Macros::default();
        macros.store(b'C', b"j\0mx\0{daemon_name}\0a\0");
        macros.store(b'M', b"i\0Q1\0{mail_addr}\0\0");
        macros.store(b'E', b"{i}\0Q2\0");
        assert_eq!(macros.get(b"{j}"), Some(&b"mx"[..]));
        assert_eq!(macros.get(b"daemon_name"), Some(&b"a"[..]));
        assert_eq!(macros.get(b"mail_addr"), Some(&b""[..]));
        assert_eq!(macros.get(b"i"), Some(&b"Q2"[..]));
        assert_eq!(macros.get(b"none"), None);
    }

    #[test]
    fn macros_that_come_before_mail_survive_mail() {
        let mut macros = Macros::default();
        macros.store(b'E', b"i\0OLD\0");
        macros.store(b'M', b"i\0NEW\0");
        macros.reach(b'M');
        assert_eq!(macros.get(b"i"), Some(&b"NEW"[..]));
        macros.forget_message();
        assert_eq!(macros.get(b"i"), None);
    }

    #[test]
    fn broken_packets_are_ignored() {
        let mut macros = Macros::default();
        macros.store(b'B', b"i\0Q\0");
        macros.store(b'M', b"i\0Q");
        assert_eq!(macros.get(b"i"), None);
        macros.store(b'M', b"a\0b\0odd\0");
        assert_eq!(macros.get(b"odd"), Some(&b""[..]));
    }
}
