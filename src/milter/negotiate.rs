//! Negotiation: what the MTA offers and what the policy uses give the answer, purely.
//!
//! Never more than was offered: Sendmail closes on a step bit that it did not offer, Postfix on an action or a version.
#![forbid(unsafe_code)]

use std::fmt;

use super::frame;

/// Version that we speak.
const VERSION: u32 = 6;
/// Every action that we know (`SMFIF_*`).
const ACTIONS: u32 = 0x1ff;
/// `SMFIF_SETSYMLIST`: macro lists may follow the answer.
const SETSYMLIST: u32 = 0x100;
/// `SMFIP_SKIP`: the filter may answer a body chunk with "no more body".
pub const SKIP: u32 = 0x400;
/// Stages that have macro lists.
const MACRO_STAGES: usize = 7;
/// Macro stages of end of message and end of headers.
const EOM: usize = 5;
const EOH: usize = 6;

/// How a step is to be handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// The policy does not use it.
    #[default]
    Skip,
    /// The policy reads it and does not answer it at once.
    Read,
    /// The policy may answer it.
    Answer,
}

/// The steps of the dialogue that can be left out or sent without waiting for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Step {
    /// `C`
    Connect = 0,
    /// `H`
    Helo,
    /// `M`
    Mail,
    /// `R`
    Rcpt,
    /// `T`
    Data,
    /// `L`
    Header,
    /// `N`
    Eoh,
    /// `B`
    Body,
    /// `U`
    Unknown,
}

/// Number of steps.
const STEPS: usize = 9;
/// The bit that leaves a step out, in the order of [`Step`] (`SMFIP_NOCONNECT` ...).
const LEAVE_OUT: [u32; STEPS] = [0x01, 0x02, 0x04, 0x08, 0x200, 0x20, 0x40, 0x10, 0x100];
/// The bit that sends a step without reply (`SMFIP_NR_CONN` ...).
const NO_REPLY: [u32; STEPS] = [
    0x1000, 0x2000, 0x4000, 0x8000, 0x1_0000, 0x80, 0x4_0000, 0x8_0000, 0x2_0000,
];

/// What the filter wants of the dialogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Need of each step, by [`Step`].
    pub steps: [Need; STEPS],
    /// Macro lists by stage number; `None` leaves the MTA's own list.
    pub macros: [Option<String>; MACRO_STAGES],
}

/// What was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Version of the dialogue.
    pub version: u32,
    /// Action bits that may be used.
    pub actions: u32,
    /// Step bits that are in force.
    pub steps: u32,
}

impl Agreement {
    /// Must this step never be answered?
    pub fn no_reply(self, step: Step) -> bool {
        self.steps & NO_REPLY[step as usize] != 0
    }

    /// Is this step not sent at all?
    pub fn left_out(self, step: Step) -> bool {
        self.steps & LEAVE_OUT[step as usize] != 0
    }
}

/// An offer that cannot be taken; the connection is to be closed without an answer (as libmilter does).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld(
    /// The version offered.
    pub u32,
);

impl fmt::Display for TooOld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the MTA speaks milter version {}, at least 2 is needed",
            self.0
        )
    }
}

impl std::error::Error for TooOld {}

/// Finds the agreement for an offer.
///
/// # Errors
/// When the version is below 2.
pub fn agree(wish: &Wish, version: u32, actions: u32, steps: u32) -> Result<Agreement, TooOld> {
    if version < 2 {
        return Err(TooOld(version));
    }
    // Very old MTAs offer nothing at all and mean the first four actions and six steps (libmilter, mi_negotiate).
    let actions = if actions == 0 { 0x0f } else { actions };
    let offered = if steps == 0 { 0x3f } else { steps };
    let mut taken = 0;
    for (index, need) in wish.steps.iter().enumerate() {
        taken |= match need {
            Need::Skip => LEAVE_OUT[index],
            Need::Read => NO_REPLY[index],
            Need::Answer => 0,
        };
    }
    if wish.steps[Step::Body as usize] != Need::Skip {
        taken |= SKIP;
    }
    Ok(Agreement {
        version: version.min(VERSION),
        actions: actions & ACTIONS,
        steps: taken & offered,
    })
}

/// Appends the answer. Lists for end of message and end of headers go together: Sendmail uses the first only beside the second.
pub fn put_answer(out: &mut Vec<u8>, wish: &Wish, agreed: Agreement) {
    let mut payload = Vec::with_capacity(12);
    for word in [agreed.version, agreed.actions, agreed.steps] {
        payload.extend_from_slice(&word.to_be_bytes());
    }
    if agreed.actions & SETSYMLIST != 0 {
        let beside = wish.macros[EOM].is_some() || wish.macros[EOH].is_some();
        for (stage, list) in (0u32..).zip(&wish.macros) {
            let at_end = stage as usize >= EOM && beside;
            let Some(list) = list.as_deref().or(at_end.then_some("i")) else {
                continue;
            };
            payload.extend_from_slice(&stage.to_be_bytes());
            payload.extend_from_slice(list.as_bytes());
            payload.push(0);
        }
    }
    frame::put(out, b'O', &[&payload]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wish(steps: &[(Step, Need)]) -> Wish {
        let mut wish = Wish::default();
        for (step, need) in steps {
            wish.steps[*step as usize] = *need;
        }
        wish
    }

    #[test]
    fn unused_steps_are_left_out_and_read_ones_are_not_answered() {
        let wish = wish(&[
            (Step::Rcpt, Need::Answer),
            (Step::Header, Need::Read),
            (Step::Eoh, Need::Answer),
        ]);
        let agreed = agree(&wish, 6, 0x1ff, 0x1f_ffff).unwrap();
        assert_eq!(
            agreed,
            Agreement {
                version: 6,
                actions: 0x1ff,
                steps: 0x01 | 0x02 | 0x04 | 0x200 | 0x80 | 0x10 | 0x100
            }
        );
        assert!(agreed.no_reply(Step::Header) && !agreed.no_reply(Step::Rcpt));
    }

    #[test]
    fn nothing_is_taken_that_was_not_offered() {
        let everything_read = Wish {
            steps: [Need::Read; STEPS],
            macros: Default::default(),
        };
        for offered in [0, 0x7f, 0x17f, 0x37f, 0x1f_ffff, u32::MAX] {
            for actions in [0, 0x3f, 0x1ff, u32::MAX] {
                for wish in [&everything_read, &Wish::default()] {
                    let agreed = agree(wish, 9, actions, offered).unwrap();
                    assert_eq!(
                        agreed.steps & !(if offered == 0 { 0x3f } else { offered }),
                        0
                    );
                    assert_eq!(
                        agreed.actions & !(if actions == 0 { 0x0f } else { actions }),
                        0
                    );
                    assert!(agreed.version <= 6);
                }
            }
        }
        assert_eq!(agree(&everything_read, 1, 0x1ff, 0x7f), Err(TooOld(1)));
    }

    #[test]
    fn lists_of_eom_and_eoh_go_together() {
        let mut wish = wish(&[(Step::Mail, Need::Answer)]);
        wish.macros[2] = Some("i {mail_addr}".to_owned());
        wish.macros[EOM] = Some("{msg_id}".to_owned());
        let agreed = Agreement {
            version: 6,
            actions: 0x111,
            steps: 0x400,
        };
        let mut out = Vec::new();
        put_answer(&mut out, &wish, agreed);
        let mut expected = b"O\0\0\0\x06\0\0\x01\x11\0\0\x04\0\0\0\0\x02i {mail_addr}\0".to_vec();
        expected.extend_from_slice(b"\0\0\0\x05{msg_id}\0\0\0\0\x06i\0");
        assert_eq!(&out[4..], &expected[..]);
        assert_eq!(
            out[..4],
            u32::try_from(expected.len()).unwrap().to_be_bytes()
        );
        out.clear();
        put_answer(
            &mut out,
            &wish,
            Agreement {
                actions: 0x11,
                ..agreed
            },
        );
        assert_eq!(out, b"\0\0\0\x0dO\0\0\0\x06\0\0\0\x11\0\0\x04\0");
    }
}
