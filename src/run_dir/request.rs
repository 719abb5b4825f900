//! The request for a restart: `NAME.restart-ID` in the run directory, with a random id, so that two restarts at once do not meet.
//!
//! Whoever asks keeps its request open with a lock on it, and signals the master; with the signal comes a digest of the request. A child
//! that shares its master's user may write what it likes into the directory, into the request too, but it can signal nobody: so the lock
//! says who asks, and the digest what.
//!
//! The request has the whole configuration in it, as the asker checked it: a master that is no longer root may be unable to read the files,
//! and a file that changes meanwhile changes nothing.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Paths;
use super::passed::{DIGITS, Kind, contents, list, open, put};
use crate::sys::{clock, lock, random, user};

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
}

/// Who asks, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Its pid.
    pub pid: i32,
    /// Of the request's bytes: see [`Asked::digest`].
    pub digest: u64,
}

/// A request that waits for its master.
#[derive(Debug)]
pub struct Asked {
    /// What the master is to be told with the signal: it takes a request of no other bytes. A signal carries no more than 64 bits; to find
    /// other bytes of one given digest takes 2^64 trials, and the request is there for seconds.
    pub digest: u64,
    /// CLOCK_BOOTTIME ns when it was made.
    pub made_ns: u64,
    /// Locked for as long as it is open.
    _file: File,
}

fn digest(bytes: &[u8]) -> u64 {
    let all = Sha256::digest(bytes);
    all.iter()
        .take(8)
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl Request {
    /// A request with an id of its own.
    pub fn new(program: PathBuf, config_file: PathBuf, config: String) -> Request {
        let id = random::seed().unwrap_or_else(|_| clock::boottime_ns());
        Request {
            id: format!("{id:0DIGITS$x}"),
            program,
            config_file,
            config,
        }
    }

    /// Puts it where the master looks, locked by this process for as long as what is returned lives.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, paths: &Paths) -> io::Result<Asked> {
        let bytes = serde_json::to_vec(self)?;
        let owner = fs::symlink_metadata(paths.dir())?;
        // Root asks a master that became the directory's owner, who must be able to read it.
        let give = (user::effective_uid() == 0 && owner.uid() != 0).then_some(owner.uid());
        Ok(Asked {
            digest: digest(&bytes),
            made_ns: clock::boottime_ns(),
            _file: put(&paths.request(&self.id), &bytes, give)?,
        })
    }

    /// Has the master not taken it yet?
    pub fn is_waiting(&self, paths: &Paths) -> bool {
        fs::symlink_metadata(paths.request(&self.id)).is_ok()
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
    /// One that cannot be used, and is gone as well: why, and its id if somebody may wait for an answer.
    Unusable(String, Option<String>),
    /// There is none.
    Nothing,
}

/// Takes one request that waits for this milter's master, the oldest first; of those only that are of these askers. What nobody keeps open any
/// more is taken away.
pub fn take(paths: &Paths, askers: &[Asker]) -> Found {
    take_by(paths, askers, |file| lock::holder_of(file, 0).ok())
}

/// `holder`: whose lock a file has, by the kernel; `None` when that cannot be known.
fn take_by(
    paths: &Paths,
    askers: &[Asker],
    holder: impl Fn(&File) -> Option<Option<Pid>>,
) -> Found {
    let mut waiting = list(paths, "restart");
    waiting.sort_by_key(|path| {
        fs::symlink_metadata(path).map_or((i64::MAX, 0), |meta| (meta.mtime(), meta.mtime_nsec()))
    });
    for path in waiting {
        let unusable = |why: &dyn std::fmt::Display, id: Option<String>| {
            Found::Unusable(format!("the request {}: {why}", path.display()), id)
        };
        let file = match open(&path, Kind::Request) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                // Whose it is cannot be known: nobody is answered. If it stays it is found again.
                let _ = fs::remove_file(&path);
                return unusable(&error, None);
            }
        };
        let asker = match holder(&file) {
            Some(Some(pid)) if askers.iter().any(|asker| asker.pid == pid.as_raw()) => pid,
            // It was locked before it had its name: who wrote it has gone.
            Some(None) => {
                let _ = fs::remove_file(&path);
                continue;
            }
            _ => continue,
        };
        let bytes = contents(file);
        if fs::remove_file(&path).is_err() {
            // Withdrawn in this moment, or it would be found again and again.
            continue;
        }
        let id = path
            .to_str()
            .and_then(|text| text.get(text.len() - DIGITS..));
        let id = id.map(str::to_owned);
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return unusable(&error, id),
        };
        let asked = Asker {
            pid: asker.as_raw(),
            digest: digest(&bytes),
        };
        if !askers.contains(&asked) {
            return unusable(
                &"it is not what was asked for: another process has changed it",
                id,
            );
        }
        return match serde_json::from_slice::<Request>(&bytes) {
            Err(error) => unusable(&error, id),
            Ok(request) if paths.request(&request.id) != path => {
                unusable(&"it is about another milter", id)
            }
            Ok(request) => Found::Request(Box::new(request), asker),
        };
    }
    Found::Nothing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::super::answer;
    use super::super::passed::clean;
    use super::*;

    /// As if this process were another one: its own locks are told to nobody.
    fn by(paths: &Paths, askers: &[Asker]) -> Found {
        take_by(paths, askers, |_| Some(Some(Pid::this())))
    }

    fn asker(asked: &Asked) -> Asker {
        Asker {
            pid: Pid::this().as_raw(),
            digest: asked.digest,
        }
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
        let one = first.write(&paths).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let two = second.write(&paths).unwrap();
        let askers = [asker(&two), asker(&one)];
        assert_eq!(by(&other, &askers), Found::Nothing);
        let nobody = Asker {
            pid: 1,
            ..askers[0]
        };
        assert_eq!(by(&paths, &[nobody]), Found::Nothing);
        assert_eq!(
            by(&paths, &askers),
            Found::Request(Box::new(first), Pid::this())
        );
        assert!(second.is_waiting(&paths));
        assert_eq!(
            by(&paths, &askers),
            Found::Request(Box::new(second.clone()), Pid::this())
        );
        assert!(!second.is_waiting(&paths));
        assert_eq!(by(&paths, &askers), Found::Nothing);
        assert_eq!(answer::read(&paths, &second.id).unwrap(), None);
        answer::write(&paths, &second.id, "ready 1\n").unwrap();
        let answered = answer::read(&paths, &second.id).unwrap();
        assert_eq!(answered.as_deref(), Some("ready 1\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_request_of_ours_is_taken_away_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &"a".parse().unwrap());
        let path = paths.request("0123456789abcdef");
        let asker = |bytes: &[u8]| Asker {
            pid: Pid::this().as_raw(),
            digest: digest(bytes),
        };
        let good = serde_json::to_vec(&request()).unwrap();
        let askers = [asker(b"nonsense"), asker(&good)];
        let unusable = |why: &str, answered: bool| match by(&paths, &askers) {
            Found::Unusable(text, id) => {
                assert!(text.contains(why), "{text}");
                assert_eq!(id, answered.then(|| "0123456789abcdef".to_owned()));
            }
            other => panic!("{why}: {other:?}"),
        };
        fs::write(&path, "nonsense").unwrap();
        unusable("expected", true);
        let secret = dir.path().join("secret");
        fs::write(&secret, &good).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        unusable("symbolic links", false);
        fs::hard_link(&secret, &path).unwrap();
        unusable("no plain file", false);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        unusable("no plain file", false);
        fs::copy(&secret, &path).unwrap();
        unusable("another milter", true);
        fs::write(&path, [&good[..], b" "].concat()).unwrap();
        unusable("another process has changed it", true);
        assert!(secret.exists());
        clean(&paths);
        assert_eq!(by(&paths, &askers), Found::Nothing);
    }

    #[test]
    fn what_nobody_keeps_open_hides_no_request_and_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &"a".parse().unwrap());
        for id in 0..1000 {
            fs::write(paths.request(&format!("{id:016x}")), "{}").unwrap();
        }
        let good = request();
        let asked = good.write(&paths).unwrap();
        let of_ours = |file: &File| {
            let length = file.metadata().unwrap().len();
            Some((length > 2).then(Pid::this))
        };
        assert_eq!(
            take_by(&paths, &[asker(&asked)], of_ours),
            Found::Request(Box::new(good), Pid::this())
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
