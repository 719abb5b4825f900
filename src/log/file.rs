//! The log file: opened so that nobody can make root write or give away a file of somebody else.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::unistd::AccessFlags;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// The last line was written in part (disk full): the next begins on a line of its own.
    torn: bool,
}

impl LogFile {
    /// Opens for appending, mode 0640 when created; a link is not followed, and what is no regular file is refused. What root
    /// creates belongs to `owner`; so does, from then on, a file of root's in a directory where only root can put files.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(path: &Path, owner: Option<(u32, u32)>) -> io::Result<LogFile> {
        let mut options = OpenOptions::new();
        // Not to wait for the reader of a FIFO: the check below refuses it.
        options
            .append(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
        let owner = owner.filter(|_| crate::sys::user::effective_uid() == 0);
        let file = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                if let Some((uid, gid)) = owner {
                    fchown(&file, Some(uid), Some(gid))?;
                }
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = options.open(path).map_err(explained)?;
                let meta = file.metadata()?;
                if !meta.is_file() {
                    return Err(not_regular());
                }
                if let Some((uid, gid)) = owner
                    && meta.uid() == 0
                    && meta.nlink() == 1
                    && only_root_writes(path)
                {
                    fchown(&file, Some(uid), Some(gid))?;
                }
                file
            }
            Err(error) => return Err(error),
        };
        Ok(LogFile { file, torn: false })
    }

    /// A file that somebody else opened, for appending.
    pub(super) fn opened(file: File) -> LogFile {
        LogFile { file, torn: false }
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes a line with one call, so that lines of several processes do not mix.
    ///
    /// # Errors
    /// The kernel's; its own for a full disk when only a part was written.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let separated;
        let bytes = if self.torn {
            separated = format!("\n{line}");
            separated.as_bytes()
        } else {
            line.as_bytes()
        };
        let written = self.file.write(bytes)?;
        if written < bytes.len() {
            self.torn |= written > 0;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.torn = false;
        Ok(())
    }
}

/// Could [`LogFile::open`] open it? Nothing is made.
///
/// # Errors
/// The kernel's.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    let opened = OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(()),
        Ok(_) => Err(not_regular()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            nix::unistd::eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)?;
            Ok(())
        }
        Err(error) => Err(explained(error)),
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

/// ELOOP says nothing to an operator.
fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ELOOP) {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a symbolic link, and these are not followed",
        )
    } else {
        error
    }
}

/// Could nobody but root have put this file there, say as a link to a file of root's?
fn only_root_writes(path: &Path) -> bool {
    path.parent()
        .and_then(|folder| fs::symlink_metadata(folder).ok())
        .is_some_and(|meta| meta.is_dir() && meta.uid() == 0 && meta.mode() & 0o022 == 0)
}
