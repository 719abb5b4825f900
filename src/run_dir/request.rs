//! The request for a restart and the answer to it: `NAME.restart-ID` and `NAME.answer-ID` in the run directory, with a random id each, so that
//! two restarts at once do not meet.
//!
//! Whoever asks keeps its request open with a lock on it, and signals the master: a request counts only if its lock is the sender's.
//!
//! The request has the whole configuration in it, as the asker checked it: a master that is no longer root may be unable to read the files,
//! and a file that changes meanwhile changes nothing. Both are complete before they have their names, and believed only if they are plain
//! files of root's or of the reader's own.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Paths;
use crate::sys::{clock, lock, random, user};

/// The longest request or answer.
const MOST_BYTES: u64 = 16 << 20;
/// Whoever asked for a restart has given up waiting for its beginning after this.
const FRESH: Duration = Duration::from_secs(300);
/// Requests that are looked at.
const MOST_WAITING: usize = 256;
/// Hexadecimal digits of an id.
const DIGITS: usize = 16;

/// A restart that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names the answer.
    pub id: String,
    /// The program that takes over.
    pub program: PathBuf,
    /// The configuration's file, as messages name it.
    pub config_file: PathBuf,
    /// The configuration, as `check --dump` prints it.
    pub config: String,
    /// CLOCK_BOOTTIME ns when it was written.
    pub at_ns: u64,
}

impl Request {
    /// A request with an id of its own.
    pub fn new(program: PathBuf, config_file: PathBuf, config: String) -> Request {
        let at_ns = clock::boottime_ns();
        let id = random::seed().unwrap_or(at_ns);
        Request {
            id: format!("{id:0DIGITS$x}"),
            program,
            config_file,
            config,
            at_ns,
        }
    }

    /// Puts it where the master looks, locked by this process for as long as the file that is returned stays open.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, paths: &Paths) -> io::Result<File> {
        let bytes = serde_json::to_vec(self)?;
        let owner = fs::symlink_metadata(paths.dir())?;
        // Root asks a master that became the directory's owner, who must be able to read it.
        let give = (user::effective_uid() == 0 && owner.uid() != 0).then_some(owner.uid());
        put(&paths.request(&self.id), &bytes, give)
    }

    /// Takes it away again, if it is still there.
    pub fn withdraw(&self, paths: &Paths) {
        // The master has it, or nobody will.
        let _ = fs::remove_file(paths.request(&self.id));
    }
}

/// What a look for requests found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The oldest one, and who asked. It is taken: the file is gone.
    Request(Box<Request>, Pid),
    /// One that cannot be used, and is gone as well: why.
    Unusable(String),
    /// There is none.
    Nothing,
}

/// Takes one request that waits for this milter's master, the oldest first; of those only for which somebody vouches. `vouched`: is it by
/// a process that signalled the master? A child that shares its master's user may write what it likes into the directory, but it can
/// signal nobody, and the kernel tells whose lock a file has.
pub fn take(paths: &Paths, vouched: impl Fn(&File) -> Option<Pid>) -> Found {
    let mut waiting = list(paths, "restart");
    waiting.sort_by_key(|path| {
        fs::symlink_metadata(path).map_or((i64::MAX, 0), |meta| (meta.mtime(), meta.mtime_nsec()))
    });
    for path in waiting.iter().take(MOST_WAITING) {
        let unusable =
            |why: String| Found::Unusable(format!("the request {}: {why}", path.display()));
        let opened = match open(path) {
            Ok(file) => match vouched(&file) {
                Some(asker) => Ok((file, asker)),
                None => continue,
            },
            Err(error) => Err(error),
        };
        let read = opened.and_then(|(file, asker)| {
            let request = serde_json::from_slice::<Request>(&contents(file)?)?;
            Ok((request, asker))
        });
        if fs::remove_file(path).is_err() {
            // Withdrawn in this moment, or it would be found again and again.
            continue;
        }
        return match read {
            Err(error) => unusable(error.to_string()),
            Ok((request, _)) if paths.request(&request.id) != *path => {
                unusable("it is about another milter".to_owned())
            }
            Ok((request, asker)) => match clock::boottime_ns().checked_sub(request.at_ns) {
                Some(age) if u128::from(age) <= FRESH.as_nanos() => {
                    Found::Request(Box::new(request), asker)
                }
                _ => unusable("nobody waits for it any more".to_owned()),
            },
        };
    }
    Found::Nothing
}

/// Answers a request.
///
/// # Errors
/// The kernel's.
pub fn answer(paths: &Paths, id: &str, text: &str) -> io::Result<()> {
    put(&paths.answer(id), text.as_bytes(), None).map(drop)
}

/// The answer to a request, once there is one; it is taken away.
///
/// # Errors
/// The kernel's; `InvalidData` for what is no answer of a master's. `uid`: whose master it is.
pub fn read_answer(paths: &Paths, id: &str) -> io::Result<Option<String>> {
    let path = paths.answer(id);
    match open(&path).and_then(contents) {
        Ok(bytes) => {
            let _ = fs::remove_file(&path);
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes requests and answers that nobody reads any more: the milter is gone.
pub fn clean(paths: &Paths) {
    for kind in ["restart", "answer"] {
        for path in list(paths, kind) {
            // What cannot be removed harms nothing.
            let _ = fs::remove_file(path);
        }
    }
}

fn list(paths: &Paths, kind: &str) -> Vec<PathBuf> {
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
fn put(path: &Path, bytes: &[u8], owner: Option<u32>) -> io::Result<File> {
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

fn open(path: &Path) -> io::Result<File> {
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
    // Root reads answers of a master that became the directory's owner.
    let of_directory = uid == 0
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

fn contents(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn anybody(_: &File) -> Option<Pid> {
        Some(Pid::this())
    }

    fn request() -> Request {
        Request::new("/p".into(), "/c".into(), "x = 1\n".into())
    }

    #[test]
    fn a_request_is_taken_once_the_oldest_first_and_answered_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &"a".parse().unwrap());
        let other = Paths::new(dir.path(), &"a.b".parse().unwrap());
        let (first, second) = (request(), request());
        assert_ne!(first.id, second.id);
        let _first = first.write(&paths).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let _second = second.write(&paths).unwrap();
        assert_eq!(take(&other, anybody), Found::Nothing);
        assert_eq!(take(&paths, |_| None), Found::Nothing);
        assert_eq!(
            take(&paths, anybody),
            Found::Request(Box::new(first), Pid::this())
        );
        assert_eq!(
            take(&paths, anybody),
            Found::Request(Box::new(second.clone()), Pid::this())
        );
        assert_eq!(take(&paths, anybody), Found::Nothing);
        assert_eq!(read_answer(&paths, &second.id).unwrap(), None);
        answer(&paths, &second.id, "ready 1\n").unwrap();
        let answered = read_answer(&paths, &second.id).unwrap();
        assert_eq!(answered.as_deref(), Some("ready 1\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_request_of_ours_is_taken_away_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &"a".parse().unwrap());
        let path = paths.request("0123456789abcdef");
        let unusable = |why: &str| match take(&paths, anybody) {
            Found::Unusable(text) => assert!(text.contains(why), "{text}"),
            other => panic!("{why}: {other:?}"),
        };
        fs::write(&path, "nonsense").unwrap();
        unusable("expected");
        let secret = dir.path().join("secret");
        fs::write(&secret, serde_json::to_vec(&request()).unwrap()).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        unusable("symbolic links");
        fs::hard_link(&secret, &path).unwrap();
        unusable("no plain file");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        unusable("no plain file");
        fs::copy(&secret, &path).unwrap();
        unusable("another milter");
        for at_ns in [0, u64::MAX] {
            let other_time = Request { at_ns, ..request() };
            let _kept = other_time.write(&paths).unwrap();
            if at_ns > 0 || clock::boottime_ns() > 301_000_000_000 {
                unusable("nobody waits");
            }
        }
        assert!(secret.exists());
        clean(&paths);
        assert_eq!(take(&paths, anybody), Found::Nothing);
    }
}
