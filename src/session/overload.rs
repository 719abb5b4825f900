//! A connection that is one too many: its first replied command, connect, gets the configured reply, and so does every later one. The policy
//! is not asked, and no message is counted.
#![forbid(unsafe_code)]

use super::close::{Broken, Close};
use super::stage::Stage;
use super::{Session, Step, Tally};
use crate::milter::command::Command;
use crate::milter::negotiate;
use crate::milter::reply::{self, Plain};

/// What such a connection gets (`concurrency_limit_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadReply {
    /// Refused for now.
    Tempfail,
    /// Taken without filtering.
    Accept,
    /// Refused for good.
    Reject,
}

impl Session {
    /// Handles one command; `None`: go on with the next.
    pub(super) fn overload_command(
        &mut self,
        reply: OverloadReply,
        code: u8,
        command: &Command<'_>,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Option<Step<'static>> {
        match command {
            Command::Quit => return Some(Step::Close(Close::Quit)),
            Command::Negotiate(version, actions, steps) if self.agreed.is_none() => {
                let wish = &self.plan.overload_wish;
                match negotiate::agree(wish, *version, *actions, *steps) {
                    Ok(agreed) => {
                        negotiate::put_answer(out, wish, agreed);
                        self.agreed = Some(agreed);
                        self.stage = Stage::Client;
                        return None;
                    }
                    Err(error) => return Some(Step::Close(Close::Broken(Broken::Version(error)))),
                }
            }
            Command::Negotiate(..) => {}
            Command::Macros(..) | Command::Abort | Command::QuitNewConnection
                if self.agreed.is_some() =>
            {
                return None;
            }
            _ if self.agreed.is_some() => {
                if !self.overload_counted {
                    self.overload_counted = true;
                    tally.overload_answered += 1;
                }
                self.stage = Stage::Idle;
                reply::plain(
                    out,
                    match reply {
                        OverloadReply::Tempfail => Plain::Tempfail,
                        OverloadReply::Accept => Plain::Accept,
                        OverloadReply::Reject => Plain::Reject,
                    },
                );
                return None;
            }
            _ => {}
        }
        Some(Step::Close(Close::Broken(Broken::Order(code, self.stage))))
    }
}
