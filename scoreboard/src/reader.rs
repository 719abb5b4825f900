//! The readers: [`read`] and [`Reader`] use `pread` only, hence never die of a truncated file; [`MapReader`] maps the board, for programs that
//! look at it many times a second.
//!
//! Every byte of the file is taken for hostile: what is wrong with it is an error or a field of the [`Snapshot`], never a panic, an endless
//! loop or a large allocation. Readers write nothing and take no lock.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytemuck::Zeroable;
use nix::libc;

use crate::brief::Brief;
use crate::collect::{Collected, Detail, collect, deaths, used_slots};
use crate::history::History;
use crate::latch::{self, Sound, Source, Span, TRIES};
use crate::layout::{ENDIAN, GLOBAL, Geometry, Header, MAGIC, MAJOR, READY};
use crate::liveness::{self, Liveness};
use crate::map::ReadMap;
use crate::records::GlobalRecord;
use crate::ring;
use crate::snapshot::{Slot, Snapshot};

/// Most bytes of a schema that [`Reader::schema`] returns.
const SCHEMA_MOST: usize = 1 << 20;

/// Why a board cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// It cannot be opened: missing, a link, or not for us.
    Open(PathBuf, io::Error),
    /// It cannot be read; a file that was cut short meanwhile ends here.
    Read(PathBuf, io::Error),
    /// It is no board.
    NotABoard(PathBuf, &'static str),
    /// Its major version is not ours; holds major and minor.
    Version(PathBuf, u32, u32),
    /// It comes from a machine of the other byte order.
    Endian(PathBuf),
    /// Its maker has not finished it.
    NotReady(PathBuf),
    /// The header tells one size, the file has another; holds both.
    Size(PathBuf, u64, u64),
    /// The header contradicts itself: in what.
    Geometry(PathBuf, &'static str),
}

impl ReadError {
    /// There is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, ReadError::Open(_, error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The file is there, and we may not read it.
    pub fn is_denied(&self) -> bool {
        matches!(self, ReadError::Open(_, error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, what) = match self {
            ReadError::Open(path, error) if error.raw_os_error() == Some(libc::ELOOP) => {
                (path, "it is a link, and links are not followed".to_owned())
            }
            ReadError::Open(path, error) if error.kind() == io::ErrorKind::PermissionDenied => (
                path,
                format!("{error}; status_mode and status_group in pmx.conf say who may"),
            ),
            ReadError::Open(path, error) | ReadError::Read(path, error) => {
                (path, error.to_string())
            }
            ReadError::NotABoard(path, what) => (path, format!("it is no scoreboard: {what}")),
            ReadError::Version(path, major, minor) => (
                path,
                format!(
                    "its format is {major}.{minor}, and this program reads {MAJOR}.x; use the pmx-milter that wrote it"
                ),
            ),
            ReadError::Endian(path) => (
                path,
                "it was written by a machine of the other byte order".to_owned(),
            ),
            ReadError::NotReady(path) => (path, "it was never finished; start again".to_owned()),
            ReadError::Size(path, told, found) => (
                path,
                format!("it has {found} bytes, and its header tells {told}; start again"),
            ),
            ReadError::Geometry(path, what) => {
                (path, format!("its header is damaged: {what}; start again"))
            }
        };
        write!(f, "cannot read the scoreboard {}: {what}", path.display())
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Open(_, error) | ReadError::Read(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Reads the board at `path` once: a few system calls a slot that was ever used, no lock, no wait.
///
/// # Errors
/// See [`ReadError`].
pub fn read(path: &Path) -> Result<Snapshot, ReadError> {
    Reader::open(path)?.snapshot()
}

/// An open board, read with `pread`.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
    header: Header,
    geometry: Geometry,
}

impl Reader {
    /// Opens the board and checks its header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        // NONBLOCK: opening a FIFO that somebody planted must not wait.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| ReadError::Open(path.to_owned(), error))?;
        let header = read_header(path, &file)?;
        let geometry =
            Geometry::of(&header).map_err(|what| ReadError::Geometry(path.to_owned(), what))?;
        Ok(Reader {
            path: path.to_owned(),
            file,
            header,
            geometry,
        })
    }

    /// The static header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The board as it is now.
    ///
    /// # Errors
    /// [`ReadError::Read`], when the file was cut short meanwhile or the system fails.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        self.look(Detail::Records)
    }

    /// The same with the histograms of the phases: about twice the cost.
    ///
    /// # Errors
    /// As for [`Reader::snapshot`].
    pub fn detailed(&self) -> Result<Snapshot, ReadError> {
        self.look(Detail::Histograms)
    }

    /// Of each slot only what a summary shows.
    ///
    /// # Errors
    /// As for [`Reader::snapshot`].
    pub fn brief(&self) -> Result<Snapshot<Brief>, ReadError> {
        brief(&Words(&self.file), self).map_err(|error| self.failed(error))
    }

    fn look(&self, detail: Detail) -> Result<Snapshot, ReadError> {
        look(&Words(&self.file), self, detail).map_err(|error| self.failed(error))
    }

    /// What the board remembers of the last ten minutes.
    ///
    /// # Errors
    /// As for [`Reader::snapshot`].
    pub fn history(&self) -> Result<History, ReadError> {
        history(&Words(&self.file), &self.geometry).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> ReadError {
        ReadError::Read(self.path.clone(), error)
    }

    /// Whether the path now leads to another file, or none: then open it again. Counters of another instance start from 0.
    pub fn is_replaced(&self) -> bool {
        is_replaced(&self.path, &self.file)
    }

    /// The description of every field that the writer put into the file: JSON.
    ///
    /// # Errors
    /// [`ReadError::Read`], or [`ReadError::Geometry`] when it is not text or larger than 1 MiB.
    pub fn schema(&self) -> Result<String, ReadError> {
        let (offset, length) = self.geometry.schema();
        if length > SCHEMA_MOST {
            return Err(ReadError::Geometry(self.path.clone(), "schema"));
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, offset as u64)
            .map_err(|error| ReadError::Read(self.path.clone(), error))?;
        String::from_utf8(bytes).map_err(|_| ReadError::Geometry(self.path.clone(), "schema"))
    }
}

/// An open board, mapped read-only: no system call a look.
///
/// Whoever may write the file (its owner alone) could truncate it, and touching the map would then end this program by SIGBUS. Programs that
/// must not take that risk use [`Reader`].
#[derive(Debug)]
pub struct MapReader {
    reader: Reader,
    map: ReadMap,
}

impl MapReader {
    /// Opens and maps the board.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<MapReader, ReadError> {
        let reader = Reader::open(path)?;
        let map = usize::try_from(reader.geometry.file_size())
            .map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
            .and_then(|bytes| ReadMap::shared(reader.file.as_fd(), bytes))
            .map_err(|error| ReadError::Read(path.to_owned(), error))?;
        Ok(MapReader { reader, map })
    }

    /// The static header.
    pub fn header(&self) -> &Header {
        &self.reader.header
    }

    /// The board as it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.look(Detail::Records)
    }

    /// The same with the histograms of the phases.
    pub fn detailed(&self) -> Snapshot {
        self.look(Detail::Histograms)
    }

    /// Of each slot only what a summary shows.
    pub fn brief(&self) -> Snapshot<Brief> {
        let board: Result<Snapshot<Brief>, Infallible> = brief(&self.map, &self.reader);
        let Ok(board) = board;
        board
    }

    fn look(&self, detail: Detail) -> Snapshot {
        let board: Result<Snapshot, Infallible> = look(&self.map, &self.reader, detail);
        let Ok(board) = board;
        board
    }

    /// What the board remembers of the last ten minutes.
    pub fn history(&self) -> History {
        let history: Result<History, Infallible> = history(&self.map, &self.reader.geometry);
        let Ok(history) = history;
        history
    }

    /// Whether the file has holes. A true board has none; reading a hole through a map makes it a page of the file system, which a damaged
    /// board could use to fill it up: read such a file with a [`Reader`].
    pub fn has_holes(&self) -> bool {
        let metadata = self.reader.file.metadata();
        metadata.is_ok_and(|meta| meta.blocks().saturating_mul(512) < meta.len())
    }

    /// How many slots a snapshot would have now.
    pub fn slots(&self) -> u32 {
        let mut global = GlobalRecord::zeroed();
        let words = bytemuck::cast_slice_mut(std::slice::from_mut(&mut global));
        let Ok(_) = latch::read::<Sound, _>(&self.map, &GLOBAL, words, TRIES);
        used_slots(&global, &self.reader.geometry)
    }

    /// Where the map lies in memory: for a handler of SIGBUS, which comes when the file is cut short.
    pub fn addresses(&self) -> std::ops::Range<usize> {
        self.map.addresses()
    }

    /// See [`Reader::is_replaced`].
    pub fn is_replaced(&self) -> bool {
        self.reader.is_replaced()
    }
}

fn history<S: Source>(source: &S, geometry: &Geometry) -> Result<History, S::Error> {
    let mut found = History::default();
    if let Some(ring) = geometry.seconds() {
        found.seconds = ring::collect::<Sound, _, _>(source, &ring)?;
    }
    if let Some(ring) = geometry.events() {
        found.events = ring::collect::<Sound, _, _>(source, &ring)?;
    }
    Ok(found)
}

fn look<S: Source>(source: &S, reader: &Reader, detail: Detail) -> Result<Snapshot, S::Error> {
    let mut collected: Collected<Slot> = collect(source, &reader.geometry, detail)?;
    for slot in &mut collected.slots {
        slot.settle();
    }
    let mut board = assemble(collected, reader);
    board.deaths = deaths(source)?;
    Ok(board)
}

fn brief<S: Source>(source: &S, reader: &Reader) -> Result<Snapshot<Brief>, S::Error> {
    let collected = collect(source, &reader.geometry, Detail::Records)?;
    Ok(assemble(collected, reader))
}

fn assemble<T>(collected: Collected<T>, reader: &Reader) -> Snapshot<T> {
    Snapshot {
        header: reader.header,
        global: collected.global,
        global_consistent: collected.global_consistent,
        slots: collected.slots,
        deaths: Vec::new(),
        liveness: Liveness::of(&reader.file, &reader.header),
        now_ns: liveness::boot_time_ns(),
        wall_ns: liveness::wall_time_ns(),
        cut: collected.cut,
        retries: collected.retries,
    }
}

fn read_header(path: &Path, file: &File) -> Result<Header, ReadError> {
    let path = || path.to_owned();
    let failed = |error| ReadError::Read(path(), error);
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(ReadError::NotABoard(path(), "not a file"));
    }
    let mut header = Header::zeroed();
    let bytes: &mut [u8] = bytemuck::bytes_of_mut(&mut header);
    match file.read_exact_at(bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(ReadError::NotABoard(path(), "it is too short"));
        }
        other => other.map_err(failed)?,
    }
    if header.magic != u64::from_ne_bytes(MAGIC) {
        return Err(ReadError::NotABoard(path(), "its first bytes are others"));
    }
    if header.endian == ENDIAN.swap_bytes() {
        return Err(ReadError::Endian(path()));
    }
    if header.endian != ENDIAN {
        return Err(ReadError::Geometry(path(), "byte order"));
    }
    if header.major() != MAJOR {
        return Err(ReadError::Version(path(), header.major(), header.minor()));
    }
    if header.ready != READY {
        return Err(ReadError::NotReady(path()));
    }
    if header.file_size != meta.len() {
        return Err(ReadError::Size(path(), header.file_size, meta.len()));
    }
    Ok(header)
}

fn is_replaced(path: &Path, file: &File) -> bool {
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(ours)) => there.ino() != ours.ino() || there.dev() != ours.dev(),
        _ => true,
    }
}

/// A file as words. Between two system calls the order of the copies is what the fences of `collect` say, for the kernel copies on the
/// caller's processor; within one it is left open, which is why versions are read by calls of their own.
struct Words<'a>(&'a File);

/// Most words that one system call reads for many spans. Reading whole pages for a word of each, into a buffer that stays in the
/// processor's cache, costs half of what a system call for each word does (256 slots: 0.4 against 0.8 ms).
const WINDOW: usize = 8192;

impl Source for Words<'_> {
    type Error = io::Error;

    fn copy(&self, word: usize, out: &mut [u64]) -> io::Result<()> {
        let offset = (word as u64).saturating_mul(8);
        self.0.read_exact_at(bytemuck::cast_slice_mut(out), offset)
    }

    fn copy_many(&self, spans: &mut [Span<'_>]) -> io::Result<()> {
        let mut window = vec![0; WINDOW];
        let mut rest = spans;
        while let Some(start) = rest.first().map(|span| span.word) {
            // As many spans as lie in one window; one that is larger than that is read alone.
            let end_of = |span: &Span<'_>| span.word.saturating_add(span.out.len());
            let inside = |span: &&Span<'_>| span.word >= start && end_of(span) - start <= WINDOW;
            let count = rest.iter().take_while(inside).count();
            let (now, later) = rest.split_at_mut(count.max(1));
            match now {
                [span] => self.copy(span.word, span.out)?,
                several => {
                    let end = several.last().map_or(start, &end_of);
                    self.copy(start, &mut window[..end - start])?;
                    for span in several {
                        let from = span.word - start;
                        span.out
                            .copy_from_slice(&window[from..from + span.out.len()]);
                    }
                }
            }
            rest = later;
        }
        Ok(())
    }
}
