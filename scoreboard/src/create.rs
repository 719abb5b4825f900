//! How a board comes to be: complete before it has its name. No reader ever sees half a board, a full disk is an error message here and
//! not a SIGBUS later, and a link planted in the directory is not followed.
//!
//! Temporary file (new, 0600, random name, same directory) → every byte allocated → mapped and filled → lock taken on a descriptor of
//! its own → owner and mode → ready word → rename. Never truncated, resized or used again. Called by the master once; two masters are
//! kept apart by another lock, before.
#![forbid(unsafe_code)]

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use bytemuck::Zeroable;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, posix_fallocate, renameat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{SysconfVar, UnlinkatFlags, sysconf, unlinkat};

use crate::layout::{ENDIAN, Geometry, Header, MAGIC, MAJOR, MAX_SLOTS, MINOR, READY, READY_WORD};
use crate::liveness::{self, Lock};
use crate::map::Map;
use crate::schema;
use crate::sync::{Ordering, fence};

/// What a new board shall be.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Slots: 1,024, or four times the largest pool if that is more. Fixed for the life of the file.
    pub capacity: u32,
    /// Mode of the file, for instance 0o640: who may read it may monitor.
    pub mode: u32,
    /// Group of the file, if not the master's.
    pub group: Option<u32>,
    /// Instance that this one follows; zeros when there was none.
    pub previous_instance: [u64; 2],
}

/// Why there is no board.
#[derive(Debug)]
pub enum CreateError {
    /// The directory cannot be opened, or is a link.
    Directory(PathBuf, io::Error),
    /// The name is no name in a directory, or the capacity is 0 or beyond every bound.
    Spec(String),
    /// The file system has no room for so many bytes.
    NoSpace(PathBuf, u64),
    /// A step failed: what was tried, and on what.
    Step(&'static str, PathBuf, io::Error),
}

impl std::fmt::Display for CreateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CreateError::Directory(path, error) => write!(
                f,
                "cannot open the directory {} for the scoreboard: {error}; it must exist and be no link",
                path.display()
            ),
            CreateError::Spec(what) => write!(f, "cannot make a scoreboard with {what}"),
            CreateError::NoSpace(path, bytes) => write!(
                f,
                "cannot make the scoreboard {}: no room for its {} KiB; free some, enlarge the tmpfs, or set another run_dir",
                path.display(),
                bytes.div_ceil(1024)
            ),
            CreateError::Step(step, path, error) => write!(
                f,
                "cannot make the scoreboard {}: {step}: {error}",
                path.display()
            ),
        }
    }
}

impl std::error::Error for CreateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CreateError::Directory(_, error) | CreateError::Step(_, _, error) => Some(error),
            CreateError::Spec(_) | CreateError::NoSpace(..) => None,
        }
    }
}

/// A board that has its name.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) dir: OwnedFd,
    pub(crate) data: File,
    /// Holds the liveness lock; never mapped, never passed on.
    pub(crate) lock: OwnedFd,
    pub(crate) map: Map,
    pub(crate) header: Header,
    pub(crate) geometry: Geometry,
    pub(crate) warning: Option<String>,
}

/// The file while it has no name of its own: removed unless it got one.
struct Nameless<'a> {
    dir: &'a OwnedFd,
    name: String,
    renamed: bool,
}

impl Drop for Nameless<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // Best effort: what stays is removed by the next start.
            let _ = unlinkat(self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

pub(crate) fn create(dir: &Path, name: &str, spec: &Spec) -> Result<Created, CreateError> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(CreateError::Spec(format!("the name {name:?}")));
    }
    let path = dir.join(name);
    let failed = |step: &'static str| {
        let path = path.clone();
        move |error: io::Error| CreateError::Step(step, path, error)
    };
    let directory = nix::fcntl::open(
        dir,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| CreateError::Directory(dir.to_owned(), errno.into()))?;
    remove_leftovers(dir, &directory, name);

    let page = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(4096)
        .max(4096);
    let schema = schema::text();
    let geometry = Some(spec.capacity)
        .filter(|slots| *slots > 0 && u64::from(*slots) <= MAX_SLOTS)
        .and_then(|slots| Geometry::plan(slots, page, schema.len()))
        .ok_or_else(|| {
            CreateError::Spec(format!(
                "{} slots; 1 to {MAX_SLOTS} are possible",
                spec.capacity
            ))
        })?;

    let instance = liveness::random_id();
    let mut nameless = Nameless {
        dir: &directory,
        name: temporary_name(name, instance[1]),
        renamed: false,
    };
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = |flags| {
        openat(
            &directory,
            nameless.name.as_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )
    };
    let data = match open(flags | OFlag::O_CREAT | OFlag::O_EXCL) {
        Ok(file) => File::from(file),
        Err(errno) => {
            // There is nothing of ours to remove.
            nameless.renamed = true;
            return Err(failed("creating a temporary file")(errno.into()));
        }
    };
    allocate(&data, geometry.file_size()).map_err(|errno| match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::ENOMEM | Errno::EFBIG => {
            CreateError::NoSpace(path.clone(), geometry.file_size())
        }
        errno => failed("allocating its space")(errno.into()),
    })?;
    let bytes = usize::try_from(geometry.file_size())
        .map_err(|_| CreateError::Spec(format!("{} slots", spec.capacity)))?;
    let map = Map::shared(data.as_fd(), 0, bytes).map_err(failed("mapping it"))?;

    let mut header = Header {
        magic: u64::from_ne_bytes(MAGIC),
        abi: (u64::from(MAJOR) << 32) | u64::from(MINOR),
        endian: ENDIAN,
        instance,
        boot: liveness::boot_id(),
        master_pid: u64::from(std::process::id()),
        master_start: liveness::start_time(std::process::id()),
        pid_namespace: liveness::pid_namespace(),
        created_wall_ns: liveness::wall_time_ns(),
        created_boot_ns: liveness::boot_time_ns(),
        previous_instance: spec.previous_instance,
        ..Header::zeroed()
    };
    geometry.describe(&mut header, page);
    fill(&map, &header, &geometry, schema.as_bytes());
    header.ready = READY;

    let lock = open(flags).map_err(|errno| failed("opening it again")(errno.into()))?;
    liveness::take(&lock).map_err(failed("taking the lock that says that we live"))?;
    if let Some(group) = spec.group {
        fchown(&data, None, Some(group)).map_err(failed("giving it to status_group"))?;
    }
    data.set_permissions(Permissions::from_mode(spec.mode & 0o777))
        .map_err(failed("setting its mode (status_mode)"))?;
    if let Some(ready) = map.words().get(READY_WORD) {
        // Release: pairs with nothing but the rename below, which no reader can see before it; it says what the order is.
        fence(Ordering::Release);
        ready.store(READY, Ordering::Relaxed);
    }
    renameat(&directory, nameless.name.as_str(), &directory, name)
        .map_err(|errno| failed("giving it its name")(errno.into()))?;
    nameless.renamed = true;
    drop(nameless);
    let warning = disk_warning(&data, dir);
    Ok(Created {
        dir: directory,
        data,
        lock,
        map,
        header,
        geometry,
        warning,
    })
}

fn temporary_name(name: &str, random: u64) -> String {
    format!(".{name}.{random:016x}.new")
}

/// Allocates every byte: a map of a sparse file dies by SIGBUS when the file system fills up.
fn allocate(file: &File, bytes: u64) -> Result<(), Errno> {
    let length = i64::try_from(bytes).map_err(|_| Errno::EFBIG)?;
    for _ in 0..100 {
        match posix_fallocate(file, 0, length) {
            // tmpfs gives up when a signal comes, and starts again from nothing.
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Errno::EINTR)
}

fn fill(map: &Map, header: &Header, geometry: &Geometry, schema: &[u8]) {
    // All else is zero already: version 0 and empty records are a valid board.
    let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(header));
    for (cell, word) in map.words().iter().zip(words) {
        cell.store(*word, Ordering::Relaxed);
    }
    let (offset, _) = geometry.schema();
    let cells = map.words().get(offset / 8..).unwrap_or(&[]);
    for (cell, chunk) in cells.iter().zip(schema.chunks(8)) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        cell.store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
}

/// Removes temporary files of earlier tries whose maker is dead. What cannot be removed does no harm.
fn remove_leftovers(path: &Path, dir: &OwnedFd, name: &str) {
    let Ok(entries) = std::fs::read_dir(path) else {
        return;
    };
    let before = format!(".{name}.");
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let is_ours = file_name
            .to_str()
            .and_then(|text| text.strip_prefix(before.as_str()))
            .and_then(|text| text.strip_suffix(".new"))
            .is_some_and(|middle| {
                middle.len() == 16 && middle.bytes().all(|b| b.is_ascii_hexdigit())
            });
        if !is_ours {
            continue;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let free = openat(dir, file_name.as_os_str(), flags, Mode::empty())
            .is_ok_and(|file| liveness::query(&file) == Lock::Free);
        if free {
            // Best effort, see above.
            let _ = unlinkat(dir, file_name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// On a disk a store to a mapped page can wait for the disk: the JVM's "four month bug".
fn disk_warning(file: &File, dir: &Path) -> Option<String> {
    let on_tmpfs = fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC);
    (!on_tmpfs).then(|| {
        format!(
            "run_dir {} is not on tmpfs: publishing may wait for the disk; set run_dir to a directory in /run",
            dir.display()
        )
    })
}
