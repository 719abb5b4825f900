//! Why a policy cannot be used. Told to the operator by start, restart, check and try, in these words.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a policy cannot be used.
#[derive(Debug)]
pub enum PolicyError {
    /// The policy, a module or a list cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        error: io::Error,
    },
    /// A file is larger than a policy may be.
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: usize,
    },
    /// Lua refuses the text, or the top level raised an error: `file:line: message`, and the traceback if it ran.
    Lua {
        /// The policy.
        path: PathBuf,
        /// Message and traceback.
        text: String,
    },
    /// The top level did not end in time.
    Timeout {
        /// The policy.
        path: PathBuf,
        /// What it had.
        limit: Duration,
        /// Where it was.
        text: String,
    },
    /// The top level used more memory than an interpreter may have.
    Memory {
        /// The policy.
        path: PathBuf,
        /// `interpreter_memory_limit`.
        limit: usize,
    },
    /// The table that the policy returns is not what it should be: `file:line: message` where the place is known.
    Table {
        /// The policy.
        path: PathBuf,
        /// What is wrong, and what would be right.
        text: String,
    },
    /// Bytes that should hold a policy do not.
    Damaged(&'static str),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::Read { path, error } => {
                write!(f, "cannot read {} for the policy: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => f.write_str("; write it, or mend its name"),
                    io::ErrorKind::PermissionDenied => f.write_str(
                        "; let the user of the milters read it and search its directories (chmod o+r, o+x)",
                    ),
                    _ => Ok(()),
                }
            }
            PolicyError::TooLarge { path, limit } => {
                write!(
                    f,
                    "{} is too large for a policy: more than {limit} bytes",
                    path.display()
                )
            }
            PolicyError::Lua { path, text } => {
                write!(f, "policy {} does not run: {text}", path.display())
            }
            PolicyError::Timeout { path, limit, text } => write!(
                f,
                "policy {}: its top level did not end within {} s (callback_timeout): {text}",
                path.display(),
                limit.as_secs_f64()
            ),
            PolicyError::Memory { path, limit } => write!(
                f,
                "policy {}: its top level needs more than {limit} bytes; raise interpreter_memory_limit, or keep long lists in a file for list.load",
                path.display()
            ),
            PolicyError::Table { path, text } => write!(f, "policy {}: {text}", path.display()),
            PolicyError::Damaged(what) => {
                write!(f, "the checked policy arrived damaged ({what}); try again")
            }
        }
    }
}

impl std::error::Error for PolicyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PolicyError::Read { error, .. } => Some(error),
            _ => None,
        }
    }
}
