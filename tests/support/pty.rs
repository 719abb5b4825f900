//! A program in a pseudo terminal that is its controlling one, and what its screen shows.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::screen::Screen;
use super::{SOON, process, wait_until};

/// A running program and its terminal.
pub struct Pty {
    child: Child,
    /// Our end.
    master: File,
    /// The program's end: stays open, so that its modes can be looked at afterwards.
    slave: File,
    /// What it shows.
    pub screen: Screen,
}

impl Pty {
    /// Starts a program in a terminal of this size.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Pty {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(&size, None).unwrap();
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let slave = File::from(pair.slave);
        // A session of its own with this terminal: else the program would find the one of whoever runs the tests. It becomes the program
        // itself, with the same pid, for it is no leader of a group.
        let mut session = Command::new("setsid");
        session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .env("TERM", "xterm")
            // As most users have it, whatever the tests run in.
            .env_remove("LC_ALL")
            .env_remove("NO_COLOR")
            .env("LC_CTYPE", "C.UTF-8")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(Stdio::from(slave.try_clone().unwrap()));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        Pty {
            child: session.spawn().unwrap(),
            master: File::from(pair.master),
            slave,
            screen: Screen::new(columns.into(), rows.into()),
        }
    }

    /// Types.
    pub fn keys(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Takes what the program has written.
    pub fn read(&mut self) {
        let mut bytes = [0; 65_536];
        loop {
            match self.master.read(&mut bytes) {
                Ok(length) if length > 0 => self.screen.feed(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    /// Waits until the screen shows this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        self.wait_until(&format!("{text:?}"), |screen| screen.has(text));
    }

    /// Waits until this holds of the screen.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Screen) -> bool) {
        let end = std::time::Instant::now() + SOON;
        loop {
            self.read();
            if holds(&self.screen) {
                return;
            }
            assert!(
                std::time::Instant::now() < end && self.child.try_wait().unwrap().is_none(),
                "the screen never shows {what}, but:\n{}",
                self.screen.text()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Gives the terminal another size, and tells the program as a terminal does.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.read();
        self.screen.resize(columns.into(), rows.into());
        let status = Command::new("stty")
            .args(["cols", &columns.to_string(), "rows", &rows.to_string()])
            .stdin(self.slave.try_clone().unwrap())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal(i32::try_from(self.child.id()).unwrap(), signal);
    }

    /// Does it hear single keys, unseen, as no program leaves a terminal to a shell?
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_flags;
        !modes.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    /// Waits for its end: the exit status, 128 + signal when one ended it.
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        let status = wait_until(SOON, "the end of the program", || {
            self.read();
            self.child.try_wait().unwrap()
        });
        self.read();
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
