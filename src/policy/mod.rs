//! The operator's policy: what the rest of the program needs to know of it, and the Lua that runs it.
//!
//! `event`, `verdict`, `facts` and `wants` are plain types that [`crate::session`] shares; the Lua engine stands beside them.
#![forbid(unsafe_code)]

pub mod event;
pub mod facts;
pub mod verdict;
pub mod wants;

pub use event::{Callback, Event, Family};
pub use facts::{Client, Facts, Message};
pub use verdict::{Edit, Fault, FaultKind, Outcome, Verdict};
pub use wants::{Collect, Wants};
