//! The board's description of itself, as JSON in the file.
#![forbid(unsafe_code)]

/// The schema.
pub fn text() -> String {
    "{}".to_owned()
}
