//! The operator's policy: what the rest of the program needs to know of it.
//!
//! `event`, `verdict`, `facts` and `wants` are the plain types on which session and Lua engine meet.
#![forbid(unsafe_code)]

pub mod event;
pub mod facts;
pub mod verdict;
pub mod wants;

pub use event::{Callback, Event, Family};
pub use facts::{Client, Facts, Message};
pub use verdict::{Edit, Fault, FaultKind, Outcome, Verdict};
pub use wants::{Collect, Wants};
