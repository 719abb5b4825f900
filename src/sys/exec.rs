//! Becoming another program without ending: descriptors that survive exec, texts in sealed memory, and taking them up on the other side.
//!
//! The program is executed by descriptor, so that what was tried and what takes over are the same file, whatever its path names meanwhile.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::FileStat;
use nix::unistd::Pid;

/// The most that is read back from memory: a policy's own bound, and a little.
const MOST_BYTES: u64 = 600 << 20;

/// Empty memory with a descriptor, to be written by another process of ours.
///
/// # Errors
/// The kernel's.
pub fn memory() -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Ok(memfd_create(c"pmx-milter-handover", flags)?)
}

/// Bytes in memory with a descriptor, which nobody can change any more.
///
/// # Errors
/// The kernel's.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memory()?;
    write_whole(&fd, bytes)?;
    seal(&fd)?;
    Ok(fd)
}

/// Writes from the beginning.
///
/// # Errors
/// The kernel's.
pub fn write_whole(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    File::from(fd.try_clone()?).write_all_at(bytes, 0)
}

/// All that keeps memory as it is.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

/// From now on nobody changes the bytes.
///
/// # Errors
/// The kernel's.
pub fn seal(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(())
}

/// Has whoever wrote it sealed it?
///
/// # Errors
/// The kernel's.
pub fn is_sealed(fd: &OwnedFd) -> io::Result<bool> {
    let set = fcntl(fd, FcntlArg::F_GET_SEALS)?;
    Ok(SealFlag::from_bits_retain(set).contains(seals()))
}

/// Reads from the beginning to the end, wherever anybody else stands in it.
///
/// # Errors
/// The kernel's; `InvalidData` for more than a hand-over can be.
pub fn read_whole(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd.try_clone()?);
    let length = file.metadata()?.len();
    if length > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// What becomes of a descriptor when another program is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcrossExec {
    /// It stays open.
    Stays,
    /// It is closed.
    Closed,
}

/// Says what becomes of a descriptor when another program is executed.
///
/// # Errors
/// The kernel's.
pub fn across_exec(fd: BorrowedFd<'_>, what: AcrossExec) -> io::Result<()> {
    let flags = match what {
        AcrossExec::Stays => FdFlag::empty(),
        AcrossExec::Closed => FdFlag::FD_CLOEXEC,
    };
    fcntl(fd, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// Opens a program to be executed by [`become_program`].
///
/// # Errors
/// The kernel's; `InvalidInput` for what is no regular file that may be executed.
pub fn open_program(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no program",
        ));
    }
    Ok(file.into())
}

/// May this program take our place? A process that shares a master's user may write to its run directory, and to a request that lies there:
/// it must not choose what runs without a sandbox. So the file is one that only root can have made, or the very one that the asker runs.
/// Root's own run directory has requests of root's only.
///
/// # Errors
/// The kernel's.
pub fn may_replace_us(program: &OwnedFd, asker: Pid) -> io::Result<bool> {
    let meta = nix::sys::stat::fstat(program)?;
    // None: it cannot be read, for it runs as somebody else, or has gone.
    let asker = nix::sys::stat::stat(format!("/proc/{asker}/exe").as_str()).ok();
    let root = nix::unistd::geteuid().is_root();
    Ok(root || is_beyond_doubt(&meta, asker.as_ref()))
}

fn is_beyond_doubt(program: &FileStat, asker: Option<&FileStat>) -> bool {
    let only_roots = program.st_uid == 0 && program.st_mode & 0o022 == 0;
    let same = |it: &FileStat| it.st_dev == program.st_dev && it.st_ino == program.st_ino;
    only_roots || asker.is_some_and(same)
}

/// Becomes the program, with these arguments and the same environment. It returns only when that failed: why.
pub fn become_program(program: &OwnedFd, arguments: &[&OsStr]) -> io::Error {
    let text = |bytes: &[u8]| CString::new(bytes).ok();
    let arguments: Option<Vec<CString>> = arguments.iter().map(|it| text(it.as_bytes())).collect();
    let Some(arguments) = arguments else {
        return io::ErrorKind::InvalidInput.into();
    };
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut pair = name.into_encoded_bytes();
            pair.push(b'=');
            pair.extend_from_slice(value.as_bytes());
            text(&pair)
        })
        .collect();
    match nix::unistd::fexecve(program, &arguments, &environment) {
        Err(error) => error.into(),
        Ok(never) => match never {},
    }
}

/// The descriptors that a program was started with, each to be taken up once.
#[derive(Debug, Default)]
pub struct Inherited {
    taken: BTreeSet<RawFd>,
}

impl Inherited {
    /// Takes up a descriptor by its number; it will not survive another exec.
    ///
    /// # Errors
    /// When there is no such descriptor, it is one of standard input, output and error, or it was taken up before.
    pub fn take(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        let refuse = |why: &str| {
            let text = format!("descriptor {number} {why}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        if number <= 2 {
            return refuse("is none that is handed over");
        }
        if self.taken.contains(&number) {
            return refuse("was named twice");
        }
        // SAFETY: fcntl(2) with F_GETFD takes a number only, and fails for one that is not open.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            return refuse("is not open");
        }
        self.taken.insert(number);
        // SAFETY: it is open, was open when this program began, for nobody else opens one before the hand-over is read, and is given
        // out once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        across_exec(fd.as_fd(), AcrossExec::Closed)?;
        Ok(fd)
    }
}

impl Inherited {
    /// The same for one that must be a socket.
    ///
    /// # Errors
    /// As for [`Inherited::take`], and `InvalidInput` for what is none.
    pub fn take_socket(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        use nix::sys::stat::{SFlag, fstat};
        let fd = self.take(number)?;
        if SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
            let text = format!("descriptor {number} is no socket");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(fd)
    }
}

/// Its number, by which the other side takes it up.
pub fn number(fd: impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_roots_file_or_the_askers_own_may_take_our_place() {
        let dir = tempfile::tempdir().unwrap();
        let stat = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            nix::sys::stat::stat(&path).unwrap()
        };
        let (mut mine, mut another) = (stat("mine"), stat("another"));
        (mine.st_uid, another.st_uid) = (1000, 1000);
        assert!(is_beyond_doubt(&mine, Some(&mine)));
        assert!(!is_beyond_doubt(&mine, Some(&another)));
        assert!(!is_beyond_doubt(&mine, None));
        (mine.st_uid, mine.st_mode) = (0, 0o100_755);
        assert!(is_beyond_doubt(&mine, None));
        mine.st_mode = 0o100_775;
        assert!(!is_beyond_doubt(&mine, None));
    }

    #[test]
    fn sealed_bytes_are_read_by_everybody_and_changed_by_nobody() {
        let fd = sealed(b"as it is").unwrap();
        for _ in 0..2 {
            assert_eq!(read_whole(&fd).unwrap(), b"as it is");
        }
        assert!(write_whole(&fd, b"other").is_err());
        assert!(is_sealed(&fd).unwrap() && !is_sealed(&memory().unwrap()).unwrap());
        assert!(File::from(fd).set_len(0).is_err());
    }

    #[test]
    fn a_descriptor_is_taken_up_once_and_only_if_it_is_open() {
        let fd = memory().unwrap();
        let number = number(&fd);
        let mut inherited = Inherited::default();
        std::mem::forget(fd);
        let taken = inherited.take(number).unwrap();
        assert!(inherited.take(number).is_err());
        assert!(inherited.take(1).is_err());
        assert!(inherited.take(i32::MAX).is_err());
        drop(taken);
    }

    #[test]
    fn only_a_file_that_may_be_executed_is_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert!(open_program(&path).is_err());
        assert!(open_program(dir.path()).is_err());
        assert!(open_program(&std::env::current_exe().unwrap()).is_ok());
    }
}
