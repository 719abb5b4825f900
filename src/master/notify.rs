//! What systemd is told (sd_notify(3)), from the master's own loop, so that its watchdog watches what matters. Nothing without NOTIFY_SOCKET.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The way to systemd.
#[derive(Debug)]
pub(super) struct Notify {
    on: bool,
    watchdog: Option<Duration>,
    next_watchdog: Instant,
    status: String,
}

impl Notify {
    /// Only a master in the foreground is systemd's main process.
    pub(super) fn new(foreground: bool) -> Notify {
        let on = foreground && std::env::var_os("NOTIFY_SOCKET").is_some();
        // Half the time: systemd's own advice.
        let watchdog = if on {
            sd_notify::watchdog_enabled()
        } else {
            None
        };
        Notify {
            on,
            watchdog: watchdog.map(|every| every / 2),
            next_watchdog: Instant::now(),
            status: String::new(),
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if self.on
            && let Err(error) = sd_notify::notify(states)
        {
            log::debug!("systemd cannot be told: {error}");
        }
    }

    /// The milter takes mail.
    pub(super) fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// The milter is being stopped and may take this long.
    pub(super) fn stopping(&self, limit: Duration) {
        let micros = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        self.send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(micros),
        ]);
    }

    /// One line for `systemctl status`, sent when it changed, and the watchdog's food.
    pub(super) fn tick(&mut self, now: Instant, status: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        let status = status();
        if status != self.status {
            self.send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if let Some(every) = self.watchdog
            && now >= self.next_watchdog
        {
            self.send(&[NotifyState::Watchdog]);
            self.next_watchdog = now + every;
        }
    }
}
