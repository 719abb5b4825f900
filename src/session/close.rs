//! Why a session is over: what the worker logs, once, with the peer's name. Nothing is answered.
#![forbid(unsafe_code)]

use std::fmt;

use super::stage::Stage;
use crate::milter::command::CommandError;
use crate::milter::frame::FrameError;
use crate::milter::negotiate::TooOld;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The MTA said so.
    Quit,
    /// The peer does not keep to the protocol.
    Broken(Broken),
}

/// How a peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A length that cannot be.
    Frame(FrameError),
    /// A command that cannot be.
    Command(CommandError),
    /// A version below 2.
    Version(TooOld),
    /// A command that cannot come now.
    Order(u8, Stage),
    /// More than a session may hold: what, how much, the most.
    Excess(&'static str, usize, usize),
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Close::Quit => f.write_str("the MTA quit"),
            Close::Broken(broken) => broken.fmt(f),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Frame(error) => error.fmt(f),
            Broken::Command(error) => error.fmt(f),
            Broken::Version(error) => error.fmt(f),
            Broken::Order(code, stage) => {
                write!(
                    f,
                    "command '{}' cannot come {stage}",
                    char::from(*code).escape_default()
                )
            }
            Broken::Excess(what, bytes, most) => {
                write!(f, "{what} of {bytes} bytes, at most {most} are kept")
            }
        }
    }
}

impl std::error::Error for Broken {}
