//! The paths on which control and master meet: `NAME.lock`, `NAME.pid`, `NAME.scoreboard` in the run directory, and the requests for restarts.
#![forbid(unsafe_code)]

pub mod answer;
mod passed;
pub mod request;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::MilterName;

pub use passed::clean;

/// The files of one milter in its run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    dir: PathBuf,
    name: String,
}

impl Paths {
    /// The files of `name` in `run_dir`.
    pub fn new(run_dir: &Path, name: &MilterName) -> Paths {
        Paths {
            dir: run_dir.to_owned(),
            name: name.to_string(),
        }
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Locks: byte 0 the master's, byte 1 + slot a child's.
    pub fn lock(&self) -> PathBuf {
        self.file("lock")
    }

    /// The master's pid as text, for init scripts only.
    pub fn pid_file(&self) -> PathBuf {
        self.file("pid")
    }

    /// The board.
    pub fn board(&self) -> PathBuf {
        self.file("scoreboard")
    }

    /// A board that is made for a trial and removed again, or one that is not yet what it shall be.
    pub fn trial_board(&self) -> PathBuf {
        self.file("scoreboard-trial")
    }

    /// The board after a completed stop.
    pub fn last_board(&self) -> PathBuf {
        self.file("scoreboard.last")
    }

    /// A request for a restart.
    fn request(&self, id: &str) -> PathBuf {
        self.file(&format!("restart-{id}"))
    }

    /// The answer to it.
    fn answer(&self, id: &str) -> PathBuf {
        self.file(&format!("answer-{id}"))
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.name))
    }
}

/// Writes the pid file anew: no reader sees half of it, and a link is never followed.
///
/// # Errors
/// The kernel's.
pub fn write_pid_file(paths: &Paths, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = paths.file("pid.new");
    // A leftover of a start that was killed.
    let _ = std::fs::remove_file(&fresh);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&fresh, paths.pid_file())
}

/// Milters that have a lock file or a board in the run directory, in name order. A missing directory has none.
///
/// # Errors
/// When the directory cannot be read.
pub fn milters(run_dir: &Path) -> io::Result<Vec<MilterName>> {
    let entries = match std::fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<MilterName> = Vec::new();
    for entry in entries {
        let file_name = entry?.file_name();
        let Some(text) = file_name.to_str() else {
            continue;
        };
        let name = text
            .strip_suffix(".lock")
            .or_else(|| text.strip_suffix(".scoreboard"));
        if let Some(name) = name.and_then(|name| name.parse::<MilterName>().ok())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Why a run directory is not safe to use.
#[derive(Debug)]
pub enum RunDirError {
    /// It cannot be created.
    Create(PathBuf, io::Error),
    /// It cannot be examined.
    Examine(PathBuf, io::Error),
    /// It is a link or a file.
    NotADirectory(PathBuf),
    /// Somebody else could replace our files: owner or mode is wrong.
    Unsafe(PathBuf, String),
}

impl std::fmt::Display for RunDirError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RunDirError::Create(path, error) => {
                write!(
                    f,
                    "cannot create run_dir {}: {error}; create it, or set run_dir in pmx.conf",
                    path.display()
                )
            }
            RunDirError::Examine(path, error) => {
                write!(f, "cannot examine run_dir {}: {error}", path.display())
            }
            RunDirError::NotADirectory(path) => write!(
                f,
                "run_dir {} is not a directory (links are not followed)",
                path.display()
            ),
            RunDirError::Unsafe(path, why) => {
                write!(
                    f,
                    "run_dir {} is not safe: {why}; mend it with chown and chmod 0755",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for RunDirError {}

/// Makes the run directory if it is missing (mode 0755) and checks that nobody but its owner can replace files in it; its owner.
///
/// # Errors
/// See [`RunDirError`].
pub fn make(dir: &Path) -> Result<u32, RunDirError> {
    match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)
                .map_err(|error| RunDirError::Create(dir.to_owned(), error))?;
        }
        Err(error) => return Err(RunDirError::Examine(dir.to_owned(), error)),
        Ok(_) => {}
    }
    let meta = std::fs::symlink_metadata(dir)
        .map_err(|error| RunDirError::Examine(dir.to_owned(), error))?;
    if !meta.is_dir() {
        return Err(RunDirError::NotADirectory(dir.to_owned()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(RunDirError::Unsafe(
            dir.to_owned(),
            format!("its mode {:04o} lets others write", meta.mode() & 0o7777),
        ));
    }
    Ok(meta.uid())
}

/// The same for a master that runs as we do: the directory must be ours or root's. A master of root's takes only root's, for whoever owns
/// the directory, the user of its children for one, could put a board of his own in the place of its.
///
/// # Errors
/// See [`RunDirError`].
pub fn prepare(dir: &Path) -> Result<(), RunDirError> {
    let owner = make(dir)?;
    let uid = crate::sys::user::effective_uid();
    let why = if owner == uid || owner == 0 {
        return Ok(());
    } else if uid == 0 {
        format!(
            "it belongs to user number {owner}, who could replace the scoreboard of a master of root's (pmx-init gives it to the milters' user: use pmx-init again, or give it back)"
        )
    } else {
        format!("it belongs to user number {owner}, we are {uid}")
    };
    Err(RunDirError::Unsafe(dir.to_owned(), why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn milters_are_found_by_lock_or_board_and_named_once() {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "b.lock",
            "b.scoreboard",
            "a.scoreboard",
            "a.scoreboard.last",
            "c.pid",
            "..lock",
            "notes",
        ] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let found: Vec<String> = milters(dir.path())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["a", "b"]);
        assert!(milters(&dir.path().join("missing")).unwrap().is_empty());
    }

    #[test]
    fn a_run_directory_that_others_can_write_or_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("run");
        prepare(&made).unwrap();
        fs::set_permissions(&made, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(prepare(&made), Err(RunDirError::Unsafe(..))));
        let link = dir.path().join("link");
        symlink(&made, &link).unwrap();
        assert!(matches!(prepare(&link), Err(RunDirError::NotADirectory(_))));
    }
}
