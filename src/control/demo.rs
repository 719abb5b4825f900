//! `demo`: later.
#![forbid(unsafe_code)]

use super::{Exit, MasterMain};

/// The verb.
pub fn demo(_main: MasterMain) -> Exit {
    Exit::Failed
}
