//! Files that pass between whoever asks for a restart and the master: complete before they have their names, and believed only if they are
//! plain files of root's or of the reader's own.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::Paths;
use crate::sys::{lock, user};

/// The longest request or answer.
const MOST_BYTES: u64 = 16 << 20;
/// Hexadecimal digits of an id.
pub(super) const DIGITS: usize = 16;

/// Removes requests and answers that nobody reads any more: the milter is gone.
pub fn clean(paths: &Paths) {
    for kind in ["restart", "answer"] {
        for path in list(paths, kind) {
            // What cannot be removed harms nothing.
            let _ = fs::remove_file(path);
        }
    }
}

/// Those of this milter that are there.
pub(super) fn list(paths: &Paths, kind: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(paths.dir()) else {
        return Vec::new();
    };
    let before = format!("{}.{kind}-", paths.name);
    let is_ours = |name: &str| {
        name.strip_prefix(&before)
            .is_some_and(|id| id.len() == DIGITS && id.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_ours))
        .map(|entry| entry.path())
        .collect()
}

/// Writes a file that is complete and locked before it has its name.
pub(super) fn put(path: &Path, bytes: &[u8], owner: Option<u32>) -> io::Result<File> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let write = || -> io::Result<File> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        if owner.is_some() {
            fchown(&file, owner, None)?;
        }
        lock::take(&file, 0)?;
        file.write_all(bytes)?;
        fs::rename(&fresh, path)?;
        Ok(file)
    };
    write().inspect_err(|_| {
        // Half of it, or nothing.
        let _ = fs::remove_file(&fresh);
    })
}

/// What a file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The asker's.
    Request,
    /// The master's.
    Answer,
}

/// Opens one.
pub(super) fn open(path: &Path, kind: Kind) -> io::Result<File> {
    // NONBLOCK: whoever may write to the directory could put a FIFO there.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    let uid = user::effective_uid();
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if !meta.is_file() || meta.nlink() > 1 {
        return wrong("it is no plain file");
    }
    // Root reads answers of a master that became the directory's owner. It never does what that owner asks for.
    let of_directory = kind == Kind::Answer
        && uid == 0
        && path
            .parent()
            .and_then(|dir| fs::symlink_metadata(dir).ok())
            .is_some_and(|dir| dir.uid() == meta.uid());
    if meta.uid() != uid && meta.uid() != 0 && !of_directory {
        return wrong("it belongs to another user");
    }
    if meta.len() > MOST_BYTES {
        return wrong("it is too long");
    }
    Ok(file)
}

/// All that is in it.
pub(super) fn contents(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
