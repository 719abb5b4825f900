//! Sets read from files by `list.load`: one copy a child, shared by its interpreters, never changed.
//!
//! One entry a line, without the white space around it; empty lines and lines that begin with `#` are skipped; ASCII case does not matter.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bundle::{Bundle, ListFile};

/// One set. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct List(Arc<HashSet<Box<[u8]>>>);

impl List {
    /// Reads the text of a list.
    pub(super) fn parse(bytes: &[u8]) -> List {
        let entries = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let entries = entries.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        List(Arc::new(
            entries
                .map(|entry| entry.to_ascii_lowercase().into_boxed_slice())
                .collect(),
        ))
    }

    /// Is this text an entry?
    pub(super) fn contains(&self, text: &[u8]) -> bool {
        if text.iter().any(u8::is_ascii_uppercase) {
            self.0.contains(text.to_ascii_lowercase().as_slice())
        } else {
            self.0.contains(text)
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The sets of a policy, by file. Built once a child from its [`Bundle`], then shared by its interpreters.
#[derive(Clone, Debug, Default)]
pub struct Lists(Arc<HashMap<PathBuf, List>>);

impl Lists {
    /// Builds the sets of a bundle.
    pub fn new(bundle: &Bundle) -> Lists {
        let sets = bundle
            .lists
            .iter()
            .map(|ListFile { path, bytes }| (path.clone(), List::parse(bytes)));
        Lists(Arc::new(sets.collect()))
    }

    /// The set of a file.
    pub(super) fn get(&self, path: &Path) -> Option<List> {
        self.0.get(path).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_case_do_not_matter() {
        let list = List::parse(b"# refused\n\n Bad@Example.org \r\nspam@example.net");
        assert_eq!(list.len(), 2);
        assert!(list.contains(b"bad@example.ORG") && list.contains(b"spam@example.net"));
        assert!(!list.contains(b"# refused") && !list.contains(b""));
    }
}
