//! The milter wire protocol: frames, commands, negotiation, macros, replies. Pure: no I/O, no clock, no allocation on the peer's word.
#![forbid(unsafe_code)]

pub mod command;
pub mod frame;
pub mod macros;
pub mod negotiate;
pub mod reply;
pub mod reply_text;
