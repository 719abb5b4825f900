//! The run directory as `pmx-init` makes it: owned by the configured user, so that the user's masters can work in it.
//!
//! Root changes owners here in a directory that the user may write, so that it never follows links and takes only files that are
//! root's, regular, and of one name: a hard link to somebody else's file is left alone.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::config::MilterName;
use crate::run_dir::{self, Paths, RunDirError};
use crate::sys::user::Account;

use super::{Exit, running};

/// Why the directory is not ready.
#[derive(Debug)]
pub enum PrepareError {
    /// It is not safe, or cannot be made.
    RunDir(RunDirError),
    /// Its owner cannot be changed.
    Owner(PathBuf, String, io::Error),
    /// It belongs to somebody else, who is neither root nor the user.
    Foreign(PathBuf, u32),
    /// A milter whose master is root's runs in it.
    Busy(PathBuf, MilterName),
}

impl PrepareError {
    /// The exit status that says the same.
    pub(super) fn exit(&self) -> Exit {
        match self {
            PrepareError::Owner(..) => Exit::Permission,
            PrepareError::RunDir(_) | PrepareError::Foreign(..) | PrepareError::Busy(..) => {
                Exit::Failed
            }
        }
    }
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrepareError::RunDir(error) => write!(f, "{error}"),
            PrepareError::Owner(path, user, error) => write!(
                f,
                "cannot give {} to user {user}: {error}; run pmx-init as root",
                path.display()
            ),
            PrepareError::Busy(path, name) => write!(
                f,
                "milter {name} runs in run_dir {} with a master of root's, whose files are not given to another user; stop it first: pmx-milter stop {name}",
                path.display()
            ),
            PrepareError::Foreign(path, uid) => write!(
                f,
                "run_dir {} belongs to user number {uid}, neither root nor the milters' user; choose another run_dir",
                path.display()
            ),
        }
    }
}

impl std::error::Error for PrepareError {}

/// Makes the run directory, gives it and root's files of milters in it to the user.
///
/// # Errors
/// See [`PrepareError`].
pub fn for_user(dir: &Path, account: &Account) -> Result<(), PrepareError> {
    let owner = run_dir::make(dir).map_err(PrepareError::RunDir)?;
    if owner == 0
        && let Some(name) = run_dir::milters(dir)
            .unwrap_or_default()
            .into_iter()
            .find(|name| running::is_there(&Paths::new(dir, name)))
    {
        return Err(PrepareError::Busy(dir.to_owned(), name));
    }
    let failed =
        |path: &Path, error| PrepareError::Owner(path.to_owned(), account.name.clone(), error);
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
        .open(dir)
        .map_err(|error| failed(dir, error))?;
    let meta = opened.metadata().map_err(|error| failed(dir, error))?;
    if meta.uid() != 0 && meta.uid() != account.uid {
        return Err(PrepareError::Foreign(dir.to_owned(), meta.uid()));
    }
    give(&opened, account).map_err(|error| failed(dir, error))?;
    for entry in fs::read_dir(dir).map_err(|error| failed(dir, error))? {
        let path = entry.map_err(|error| failed(dir, error))?.path();
        let ours = path
            .extension()
            .is_some_and(|ending| ["lock", "pid", "log"].iter().any(|known| ending == *known));
        if ours {
            file(&path, account).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}

fn file(path: &Path, account: &Account) -> io::Result<()> {
    // NONBLOCK: a FIFO in the user's directory must not make root wait.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if meta.is_file() && meta.nlink() == 1 && meta.uid() == 0 {
        give(&file, account)?;
    }
    Ok(())
}

fn give(file: &File, account: &Account) -> io::Result<()> {
    fchown(file, Some(account.uid), Some(account.gid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    mod needs_root {
        use std::os::unix::fs::PermissionsExt;

        use super::*;

        fn somebody() -> Account {
            assert_eq!(
                crate::sys::user::effective_uid(),
                0,
                "this test needs root: run tests/run, or leave it out with -- --skip needs_root::"
            );
            Account {
                name: "somebody".to_owned(),
                uid: 54_321,
                gid: 54_321,
                groups: vec![54_321],
            }
        }

        #[test]
        fn only_roots_own_single_files_are_given_away() {
            let account = somebody();
            let dir = tempfile::tempdir().unwrap();
            let run = dir.path().join("run");
            for_user(&run, &account).unwrap();
            let secret = dir.path().join("secret");
            fs::write(&secret, "x").unwrap();
            fs::write(run.join("a.lock"), "").unwrap();
            fs::hard_link(&secret, run.join("b.lock")).unwrap();
            std::os::unix::fs::symlink(&secret, run.join("c.lock")).unwrap();
            for_user(&run, &account).unwrap();
            let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
            assert_eq!(owner(&run), account.uid);
            assert_eq!(owner(&run.join("a.lock")), account.uid);
            assert_eq!(owner(&secret), 0);
            assert_eq!(owner(&run.join("c.lock")), 0);
        }

        #[test]
        fn a_directory_of_a_third_user_is_refused() {
            let account = somebody();
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::chown(dir.path(), Some(12_345), None).unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
            assert!(matches!(
                for_user(dir.path(), &account),
                Err(PrepareError::Foreign(_, 12_345))
            ));
        }
    }
}
