//! The four sinks, the choice among them, and the count of lines that were lost. Nothing waits.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::file::LogFile;
use super::line::{Line, Severity, Stamp};
use super::{LOST, LogChoice, LogError};
use crate::config::LogTo;
use crate::sys::calendar;

/// journald's socket (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// syslogd's socket (syslog(3)).
const SYSLOG_SOCKET: &str = "/dev/log";

/// What does not change while a process logs.
pub(super) struct Settings {
    pub(super) to: LogTo,
    pub(super) utc: bool,
    pub(super) milter: String,
    /// The file when there is neither journal nor syslog.
    pub(super) last_resort: PathBuf,
    /// User and group of a file that root creates.
    pub(super) owner: Option<(u32, u32)>,
}

/// An open way out.
pub(super) enum Sink {
    Journal(Datagrams),
    Syslog(Datagrams),
    /// Whether it is the journal's stream.
    Stderr {
        journal: bool,
    },
    File(LogFile),
}

/// A datagram socket that connects again when its server was restarted.
pub(super) struct Datagrams {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Datagrams {
    pub(super) fn open(path: &Path) -> io::Result<Datagrams> {
        let socket = UnixDatagram::unbound()?;
        // A server that does not read costs lines, never a stop.
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        Ok(Datagrams {
            path: path.to_owned(),
            socket,
        })
    }

    fn send(&mut self, datagram: &str) -> io::Result<()> {
        match self.socket.send(datagram.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => {
                *self = Datagrams::open(&self.path)?;
                self.socket.send(datagram.as_bytes()).map(drop)
            }
        }
    }
}

impl Sink {
    fn write(&mut self, line: &Line, stamp: &Stamp<'_>) -> io::Result<()> {
        match self {
            Sink::Journal(socket) => socket.send(&line.for_journal(stamp)),
            Sink::Syslog(socket) => socket.send(&line.for_syslog(stamp)),
            Sink::Stderr { journal: true } => write_stderr(&line.for_journal_stream(stamp)),
            Sink::Stderr { journal: false } => write_stderr(&line.for_file(stamp)),
            Sink::File(file) => file.write(&line.for_file(stamp)),
        }
    }
}

/// Writes only if the descriptor takes bytes now. A pipe that does takes PIPE_BUF (4 KiB) of them without waiting (pipe(7)).
fn write_stderr(line: &str) -> io::Result<()> {
    let stderr = io::stderr();
    for part in line.as_bytes().chunks(4096) {
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        nix::poll::poll(&mut ready, PollTimeout::ZERO)?;
        let takes = ready[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLOUT));
        if !takes {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if nix::unistd::write(stderr.as_fd(), part)? < part.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Is standard error the journal's? systemd says so with the device and inode number (systemd.exec(5), JOURNAL_STREAM).
fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr())
        .is_ok_and(|meta| stream == format!("{}:{}", meta.st_dev, meta.st_ino))
}

/// The sink of a process with its settings and its losses.
pub(super) struct Journal {
    settings: Settings,
    sink: Sink,
    /// Lines that could not be written since the last that could, and why.
    lost: u64,
    reason: String,
}

impl Journal {
    pub(super) fn open(settings: Settings) -> Result<(Journal, LogChoice), LogError> {
        let sockets = (Path::new(JOURNAL_SOCKET), Path::new(SYSLOG_SOCKET));
        let (sink, choice) = choose(&settings, sockets)?;
        Ok((Journal::with(settings, sink), choice))
    }

    pub(super) fn with(settings: Settings, sink: Sink) -> Journal {
        Journal {
            settings,
            sink,
            lost: 0,
            reason: String::new(),
        }
    }

    pub(super) fn reopen(&mut self) {
        let sockets = (Path::new(JOURNAL_SOCKET), Path::new(SYSLOG_SOCKET));
        match choose(&self.settings, sockets) {
            Ok((sink, _)) => self.sink = sink,
            Err(error) => self.write(&Line::new(
                Severity::Warning,
                &format!("the log goes on in its old place: {error}"),
                None,
            )),
        }
    }

    fn lose(&mut self) {
        self.lost += 1;
        LOST.fetch_add(1, Ordering::Relaxed);
    }

    /// Why lines are lost, if they are.
    pub(super) fn why_lost(&self) -> Option<String> {
        (self.lost > 0).then(|| self.reason.clone())
    }

    /// What was lost before was somebody else's.
    pub(super) fn forget_losses(&mut self) {
        self.lost = 0;
    }

    /// The log goes on in this file, which somebody else opened.
    pub(super) fn go_on_in(&mut self, file: std::fs::File) {
        self.sink = Sink::File(LogFile::opened(file));
    }

    /// The log file, if it is one.
    pub(super) fn file(&self) -> Option<&std::fs::File> {
        match &self.sink {
            Sink::File(log) => Some(log.file()),
            Sink::Journal(_) | Sink::Syslog(_) | Sink::Stderr { .. } => None,
        }
    }

    /// What is open for it beside the standard descriptors.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.sink {
            Sink::Journal(server) | Sink::Syslog(server) => Some(server.socket.as_fd()),
            Sink::File(log) => Some(log.file().as_fd()),
            Sink::Stderr { .. } => None,
        }
    }

    /// Writes a line; before it, if lines were lost, how many.
    pub(super) fn write(&mut self, line: &Line) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(0));
        // syslogd takes times without a zone for local ones.
        let utc = self.settings.utc && !matches!(self.sink, Sink::Syslog(_));
        let stamp = Stamp {
            milter: &self.settings.milter,
            pid: std::process::id(),
            time: if utc {
                calendar::utc(now)
            } else {
                calendar::local(now)
            },
        };
        if self.lost > 0 {
            let text = format!("log lines lost here: {} ({})", self.lost, self.reason);
            let notice = Line::new(Severity::Warning, &text, None);
            if self.sink.write(&notice, &stamp).is_err() {
                self.lose();
                return;
            }
            self.lost = 0;
        }
        if let Err(error) = self.sink.write(line, &stamp) {
            self.lose();
            self.reason = match error.kind() {
                io::ErrorKind::WouldBlock => "their receiver was too slow".to_owned(),
                _ => error.to_string(),
            };
        }
    }
}

/// Opens what `log_to` names; instead of a journal that does not answer syslog, instead of syslog the last resort.
pub(super) fn choose(
    settings: &Settings,
    (journal, syslog): (&Path, &Path),
) -> Result<(Sink, LogChoice), LogError> {
    let mut missing: Vec<String> = Vec::new();
    let chosen = |sink: Sink, used: LogTo, missing: Vec<String>| {
        let instead = (!missing.is_empty()).then(|| missing.join("; "));
        Ok((sink, LogChoice { used, instead }))
    };
    let file = match &settings.to {
        LogTo::Stderr => {
            let journal = stderr_is_the_journal();
            return chosen(Sink::Stderr { journal }, LogTo::Stderr, missing);
        }
        LogTo::File(path) => path,
        LogTo::Journal | LogTo::Syslog => {
            if settings.to == LogTo::Journal {
                match Datagrams::open(journal) {
                    Ok(socket) => return chosen(Sink::Journal(socket), LogTo::Journal, missing),
                    Err(error) => {
                        missing.push(format!("no journal at {}: {error}", journal.display()));
                    }
                }
            }
            match Datagrams::open(syslog) {
                Ok(socket) => return chosen(Sink::Syslog(socket), LogTo::Syslog, missing),
                Err(error) => missing.push(format!("no syslog at {}: {error}", syslog.display())),
            }
            &settings.last_resort
        }
    };
    match LogFile::open(file, settings.owner) {
        Ok(opened) => chosen(Sink::File(opened), LogTo::File(file.clone()), missing),
        Err(error) => Err(LogError {
            file: file.clone(),
            error,
            instead: (!missing.is_empty()).then(|| missing.join("; ")),
        }),
    }
}
