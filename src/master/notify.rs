//! What systemd is told (sd_notify(3)), from the master's own loop, so that its watchdog watches what matters. Nothing without NOTIFY_SOCKET.
//!
//! The socket is the master's own and never blocks it: whoever does not read in time is told later (what changes its state) or not at all.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// A socket that never blocks, and where systemd reads.
#[derive(Debug)]
struct Way {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Way {
    /// To the socket of this name: a path, or `@` and an abstract name.
    fn to(name: &OsStr) -> io::Result<Way> {
        let address = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Way { socket, address })
    }

    /// False: its queue is full.
    fn send(&self, text: &str) -> bool {
        match self.socket.send_to_addr(text.as_bytes(), &self.address) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                log::debug!("systemd cannot be told: {error}");
                true
            }
        }
    }
}

/// The way to systemd, and what it was told.
#[derive(Debug)]
pub(super) struct Notify {
    way: Option<Way>,
    watchdog: Option<Duration>,
    next_watchdog: Instant,
    status: String,
    /// What it must hear and its full queue did not take.
    owed: Vec<String>,
}

impl Notify {
    /// Only a master in the foreground is systemd's main process.
    pub(super) fn new(foreground: bool) -> Notify {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|_| foreground);
        let way = name.and_then(|name| {
            Way::to(&name)
                .inspect_err(|error| {
                    log::warn!(
                        "systemd cannot be told of the milter: NOTIFY_SOCKET={}: {error}; the unit needs Type=notify with a socket of systemd's own, or Type=exec",
                        name.display()
                    );
                })
                .ok()
        });
        let watchdog = way.as_ref().and_then(|_| sd_notify::watchdog_enabled());
        Notify::by(way, watchdog)
    }

    fn by(way: Option<Way>, watchdog: Option<Duration>) -> Notify {
        Notify {
            way,
            // Half the time: systemd's own advice.
            watchdog: watchdog.map(|every| every / 2),
            next_watchdog: Instant::now(),
            status: String::new(),
            owed: Vec::new(),
        }
    }

    /// What is still to be told, for the next program.
    pub(super) fn owed(&self) -> &[String] {
        &self.owed
    }

    /// What the program before still had to tell.
    pub(super) fn take_up(&mut self, owed: Vec<String>) {
        self.owed.splice(0..0, owed);
        self.pay();
    }

    /// Tells what changes the unit's state, now or at a later tick.
    fn owe(&mut self, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        self.owed.push(lines.join("\n"));
        self.pay();
    }

    fn pay(&mut self) {
        while let Some(first) = self.owed.first() {
            if self.way.as_ref().is_some_and(|way| !way.send(first)) {
                return;
            }
            self.owed.remove(0);
        }
    }

    /// The milter takes mail.
    pub(super) fn ready(&mut self) {
        self.owe(&[NotifyState::Ready]);
    }

    /// Another program or configuration is about to take over; [`Notify::ready`] ends it.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.owe(&[NotifyState::Reloading, now]),
            Err(_) => self.owe(&[NotifyState::Reloading]),
        }
    }

    /// The milter is being stopped and may take this long.
    pub(super) fn stopping(&mut self, limit: Duration) {
        let micros = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        self.owe(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(micros),
        ]);
    }

    /// One line for `systemctl status`, sent when it changed, and the watchdog's food. What finds no room is sent at the next tick.
    pub(super) fn tick(&mut self, now: Instant, status: impl FnOnce() -> String) {
        self.pay();
        let Some(way) = &self.way else {
            return;
        };
        if let Some(every) = self.watchdog
            && now >= self.next_watchdog
            && way.send(&NotifyState::Watchdog.to_string())
        {
            self.next_watchdog = now + every;
        }
        let status = status();
        if status != self.status && way.send(&NotifyState::Status(&status).to_string()) {
            self.status = status;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heard(systemd: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        std::iter::from_fn(|| systemd.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn a_systemd_that_does_not_read_holds_up_nobody_and_is_told_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"X=1", &path).is_ok() {}
        let (done, wait) = std::sync::mpsc::channel();
        let way = Way::to(path.as_os_str()).unwrap();
        std::thread::spawn(move || {
            let mut notify = Notify::by(Some(way), Some(Duration::from_secs(60)));
            notify.ready();
            notify.tick(Instant::now(), || "one".to_owned());
            notify.tick(Instant::now(), || "two".to_owned());
            done.send(notify).unwrap();
        });
        let mut notify = wait
            .recv_timeout(Duration::from_secs(60))
            .expect("a full queue holds up the master");
        assert!(heard(&systemd).iter().all(|text| text == "X=1"));
        notify.tick(Instant::now(), || "two".to_owned());
        assert_eq!(heard(&systemd), ["READY=1", "WATCHDOG=1", "STATUS=two"]);
        notify.tick(Instant::now(), || "two".to_owned());
        assert!(heard(&systemd).is_empty(), "nothing is told twice");
        notify.stopping(Duration::from_micros(5));
        assert_eq!(heard(&systemd), ["STOPPING=1\nEXTEND_TIMEOUT_USEC=5"]);
    }

    #[test]
    fn an_abstract_name_is_one_too() {
        let name = format!("pmx-test-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let way = Way::to(OsStr::new(&format!("@{name}"))).unwrap();
        Notify::by(Some(way), None).ready();
        assert_eq!(heard(&systemd), ["READY=1"]);
        assert!(Way::to(OsStr::new("vsock:2:1")).is_err());
    }
}
