//! Names and values of `pmx.conf`; knows no process.
#![forbid(unsafe_code)]

mod name;

pub use name::{MilterName, MilterNameError};
