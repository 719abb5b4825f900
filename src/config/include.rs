//! Files: reading one within bounds, and finding those that an `include` line names.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most bytes of one file: what is larger was named by mistake.
pub(super) const MOST_BYTES: u64 = 1 << 20;
/// Most files that one pattern may find.
const MOST_FILES: usize = 4096;

/// Reads a file; at most [`MOST_BYTES`].
///
/// # Errors
/// The kernel's, or `FileTooLarge`.
pub(super) fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 1 MiB and thus no configuration",
        ));
    }
    Ok(bytes)
}

/// The files that a pattern names, in name order. A pattern without `*` and `?` names exactly one file, which must exist; a pattern
/// with them may find none. Names that begin with a dot are found only by a pattern that does.
///
/// # Errors
/// A text that says what is wrong and what to do.
pub(super) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = pattern.display();
    let (Some(folder), Some(last)) = (
        pattern.parent(),
        pattern.file_name().and_then(|name| name.to_str()),
    ) else {
        return Err(format!("cannot include {shown}: it does not name a file"));
    };
    if folder.to_string_lossy().contains(['*', '?']) {
        return Err(format!(
            "cannot include {shown}: * and ? may stand in the last part of a path only"
        ));
    }
    if !last.contains(['*', '?']) {
        return match fs::metadata(pattern) {
            Ok(meta) if meta.is_file() => Ok(vec![pattern.to_owned()]),
            Ok(_) => Err(format!(
                "cannot include {shown}: it is not a file; to include the files of a directory write \"{shown}/*.conf\""
            )),
            Err(error) => Err(format!(
                "cannot include {shown}: {error}; create it or remove it from include"
            )),
        };
    }
    let entries = fs::read_dir(folder).map_err(|error| {
        format!(
            "cannot include {shown}: directory {}: {error}; create it or remove it from include",
            folder.display()
        )
    })?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot include {shown}: {error}"))?;
        let name = entry.file_name();
        let found = name.to_str().is_some_and(|name| {
            name.starts_with('.') == last.starts_with('.') && matches(last, name)
        });
        let path = entry.path();
        if found && path.is_file() {
            if files.len() >= MOST_FILES {
                return Err(format!(
                    "cannot include {shown}: it finds more than {MOST_FILES} files"
                ));
            }
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Does a name match a pattern of `*` (any characters) and `?` (one)? Linear memory, no recursion.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last star takes one character more.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    p = after;
                    n = taken + 1;
                    star = Some((after, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*.conf", ".conf", true),
            ("?.conf", "ab.conf", false),
            ("a*b*c", "aXbbYc", true),
            ("a*b*c", "aXYc", false),
            ("*", "", true),
            ("**x", "yyx", true),
            ("?", "ü", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_finds_files_in_name_order_without_hidden_ones_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.conf.bak"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("d.conf")).unwrap();
        let found = expand(&dir.path().join("*.conf")).unwrap();
        assert_eq!(
            found,
            [dir.path().join("a.conf"), dir.path().join("b.conf")]
        );
        assert!(expand(&dir.path().join("x*.conf")).unwrap().is_empty());
        let error = expand(&dir.path().join("missing/*.conf")).unwrap_err();
        assert!(error.contains("create it or remove it"), "{error}");
        assert!(expand(&dir.path().join("z.conf")).is_err());
        assert!(expand(&dir.path().join("*/z.conf")).is_err());
    }
}
