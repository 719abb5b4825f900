//! The terminal: taken, given back however this program ends, and read. Signals are read from a descriptor, so that they find a terminal
//! that is whole.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use nix::sys::signalfd::SignalFd;
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::layout::{Position, Rect};

use crate::sys::signal;

/// Told to end; the window has another size; it goes on after a stop.
const SIGNALS: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// What came in.
#[derive(Debug, PartialEq)]
pub(super) enum Input {
    Key(KeyEvent),
    /// Somebody wants this program to end, or the terminal is gone.
    End,
}

/// The screen while it is ours.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    signals: SignalFd,
}

/// Why there can be no screen here.
pub(super) fn unsuitable() -> Option<&'static str> {
    if !io::stdout().is_terminal() {
        Some("the standard output is no terminal")
    } else if !io::stdin().is_terminal() {
        Some("the standard input is no terminal")
    } else if std::env::var_os("TERM").is_some_and(|name| name == "dumb") {
        Some("TERM=dumb cannot move its cursor")
    } else {
        None
    }
}

impl Screen {
    /// Takes the terminal. A panic gives it back before it is told.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn take() -> io::Result<Screen> {
        let signals = signal::descriptor(&SIGNALS)?;
        let terminal = ratatui::try_init().inspect_err(|_| give_back())?;
        Ok(Screen { terminal, signals })
    }

    /// Shows a picture; it has the size that the terminal has now.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn show(&mut self, draw: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        self.terminal.draw(|frame| {
            let area = frame.area();
            draw(area, frame.buffer_mut());
        })?;
        Ok(())
    }

    /// Waits for keys and signals; what came in, nothing when only the time passed or the window changed.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<Vec<Input>> {
        let stdin = io::stdin();
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        let [keys, _] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let mut found = Vec::new();
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGWINCH)) => {}
                Ok(Ok(Signal::SIGCONT)) => self.take_again()?,
                _ => found.push(Input::End),
            }
        }
        if keys.intersects(gone) {
            found.push(Input::End);
        } else if keys.contains(PollFlags::POLLIN) {
            while event::poll(Duration::ZERO)? {
                if let Event::Key(key) = event::read()? {
                    found.push(Input::Key(key));
                }
            }
        }
        Ok(found)
    }

    /// Gives the terminal to the shell and stops, as Ctrl-Z does elsewhere.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        // This process and no other; it goes on here after SIGCONT, which `wait` then reads.
        raise(Signal::SIGSTOP)?;
        Ok(())
    }

    /// After a stop: the shell has set the terminal as it likes it.
    fn take_again(&mut self) -> io::Result<()> {
        use ratatui::crossterm::execute;
        use ratatui::crossterm::terminal::{
            EnterAlternateScreen, disable_raw_mode, enable_raw_mode,
        };
        // The modes that are kept for the end are the shell's of now.
        disable_raw_mode()?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        // Everything is drawn anew. Not by `clear`, which asks the terminal where its cursor is and waits for the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
        // The terminal's own end shows the cursor.
    }
}

/// When even that fails, the terminal is gone.
fn give_back() {
    let _ = ratatui::try_restore();
}
