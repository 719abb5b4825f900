//! The milter wire protocol: frames, commands, replies, negotiation, macros. Pure: no I/O, no clock, no allocation on the peer's word.
#![forbid(unsafe_code)]

pub mod macros;
pub mod reply_text;
