//! What a milter that ended without cleaning up leaves behind, and its removal once nobody holds its locks.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use scoreboard::BoardVerdict;

use crate::config::Port;
use crate::run_dir::Paths;
use crate::sys::{lock, socket};

use super::terminal::clean;

/// Removes pid file, unix socket and a board that was never shown, and keeps the board as `NAME.scoreboard.last`. The lock file stays: removing it would let two
/// masters lock two files of one name. True when there was a board.
///
/// The master's lock is held meanwhile. If a master has it, one that has just started or one in another pid namespace, everything is its
/// own and stays.
///
/// # Errors
/// When one of them cannot be removed.
pub(super) fn remove(paths: &Paths) -> io::Result<bool> {
    let there = |path: &Path| fs::symlink_metadata(path).is_ok();
    if !there(&paths.pid_file()) && !there(&paths.board()) {
        return Ok(false);
    }
    // Kept open to the end: closing it gives the lock back.
    let lock = match lock::open_to_take(&paths.lock(), false) {
        Ok(file) => Some(file),
        // Somebody removed it. Its board still tells whether a master has it open.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let free = match &lock {
        Some(file) => lock::take_to_clean(file)?,
        None => !is_alive(&paths.board()),
    };
    if !free {
        return Ok(false);
    }
    let port = port_of(&paths.board());
    if let Some(Port::Unix(socket)) = port {
        remove_socket(&socket)?;
    }
    gone(fs::remove_file(paths.pid_file()))?;
    gone(fs::remove_file(paths.trial_board()))?;
    match fs::rename(paths.board(), paths.last_board()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_alive(board: &Path) -> bool {
    scoreboard::read(board)
        .is_ok_and(|snapshot| matches!(snapshot.verdict(), BoardVerdict::Alive { .. }))
}

/// Where a board says that its milter listens.
pub(super) fn port_of(board: &Path) -> Option<Port> {
    let snapshot = scoreboard::read(board).ok()?;
    let text = clean(scoreboard::text(&snapshot.global.port));
    text.parse().ok()
}

/// Removes a socket that nobody listens on. A board is not trusted to name other files: only a socket is removed.
pub(super) fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match socket::somebody_listens(path) {
        Ok(false) => gone(fs::remove_file(path)),
        // Another program took the path, or who has it cannot be known.
        Ok(true) | Err(_) => Ok(()),
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_lock_file_stays_and_the_board_is_kept_as_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &"policy".parse().unwrap());
        for file in [
            paths.lock(),
            paths.pid_file(),
            paths.board(),
            paths.trial_board(),
        ] {
            fs::write(file, "x").unwrap();
        }
        assert!(remove(&paths).unwrap());
        assert!(!paths.trial_board().exists());
        assert!(paths.lock().exists() && paths.last_board().exists());
        assert!(!paths.pid_file().exists() && !paths.board().exists());
        assert!(!remove(&paths).unwrap(), "nothing is left");
    }

    #[test]
    fn nothing_is_removed_while_a_master_has_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), &"policy".parse().unwrap());
        for file in [paths.lock(), paths.pid_file(), paths.board()] {
            fs::write(file, "x").unwrap();
        }
        let script = "import fcntl, sys\nf = open(sys.argv[1], 'r+b')\nfcntl.lockf(f, fcntl.LOCK_EX, 1, 0)\nprint(flush=True)\nsys.stdin.read()";
        let mut master = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(paths.lock())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0];
        io::Read::read_exact(master.stdout.as_mut().unwrap(), &mut held).unwrap();
        assert!(!remove(&paths).unwrap());
        assert!(paths.board().exists() && paths.pid_file().exists());
        drop(master.stdin.take());
        master.wait().unwrap();
        assert!(remove(&paths).unwrap());
        assert!(!paths.board().exists());
    }

    #[test]
    fn only_a_socket_without_a_listener_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        remove_socket(&file).unwrap();
        assert!(file.exists());
        let socket = dir.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        remove_socket(&socket).unwrap();
        assert!(socket.exists(), "somebody listens");
        drop(listener);
        remove_socket(&socket).unwrap();
        assert!(!socket.exists());
        remove_socket(&socket).unwrap();
    }
}
