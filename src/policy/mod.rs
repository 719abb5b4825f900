//! The operator's policy: what the rest of the program needs to know of it, and the Lua that runs it.
//!
//! `event`, `verdict`, `facts` and `wants` are the types on which session and engine meet. [`check_here`] reads a policy once into a
//! [`Bundle`]; every [`Interpreter`] is built from these bytes. `api` is what a policy sees, a file an object.
#![forbid(unsafe_code)]

mod api;
mod bundle;
mod checker;
mod context;
mod error;
pub mod event;
pub mod facts;
mod interpreter;
mod lists;
mod load;
mod sandbox;
#[cfg(test)]
mod tests;
pub mod verdict;
pub mod wants;

pub use bundle::{Bundle, ListFile, Module};
pub use checker::check_here;
pub use context::Context;
pub use error::PolicyError;
pub use event::{Callback, Event, Family};
pub use facts::{Client, Facts, Header, Headers, Message, Recipient};
pub use interpreter::{Interpreter, Limits, Progress, Suspended, Wake};
pub use lists::Lists;
pub use verdict::{Edit, Fault, FaultKind, Outcome, Verdict};
pub use wants::{Collect, Wants};
