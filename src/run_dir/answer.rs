//! The master's answer to a request for a restart: `NAME.answer-ID` in the run directory.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::time::Duration;

use super::Paths;
use super::passed::{Kind, contents, list, open, put};

/// Whoever waits for an answer looks for it many times a second.
const READ_BY_THEN: Duration = Duration::from_secs(600);

/// Answers a request. Answers that nobody has read for long are taken away: whoever asked did not wait.
///
/// # Errors
/// The kernel's.
pub fn write(paths: &Paths, id: &str, text: &str) -> io::Result<()> {
    for path in list(paths, "answer") {
        let age = fs::symlink_metadata(&path).and_then(|meta| meta.modified());
        let age = age.map(|since| since.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age >= READ_BY_THEN) {
            let _ = fs::remove_file(&path);
        }
    }
    put(&paths.answer(id), text.as_bytes(), None).map(drop)
}

/// The answer to a request, once there is one; it is taken away.
///
/// # Errors
/// The kernel's; `InvalidData` for what is no answer of a master's.
pub fn read(paths: &Paths, id: &str) -> io::Result<Option<String>> {
    let path = paths.answer(id);
    match open(&path, Kind::Answer).and_then(contents) {
        Ok(bytes) => {
            let _ = fs::remove_file(&path);
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;

    use super::*;

    #[test]
    fn an_answer_that_nobody_came_for_goes_with_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &"a".parse().unwrap());
        write(&paths, "0000000000000001", "ready 1\n").unwrap();
        let old = File::options()
            .write(true)
            .open(paths.answer("0000000000000001"))
            .unwrap();
        write(&paths, "0000000000000002", "ready 1\n").unwrap();
        assert!(paths.answer("0000000000000001").exists());
        let before = std::time::SystemTime::now() - READ_BY_THEN;
        old.set_modified(before).unwrap();
        write(&paths, "0000000000000003", "ready 1\n").unwrap();
        assert!(!paths.answer("0000000000000001").exists());
        assert!(paths.answer("0000000000000002").exists());
    }
}
