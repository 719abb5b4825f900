//! What a stop waits for, and what it leaves when it gives up: the sentences for the operator.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use nix::unistd::Pid;

use crate::config::MilterName;
use crate::sys::process;

use super::running::Process;
use super::stop_signal::StopSignal;
use super::terminal::{count, duration, say};

/// A board is not believed beyond this.
pub(super) const A_DAY: Duration = Duration::from_secs(86_400);

/// What a graceful stop waits for.
pub(super) struct Waiting {
    connections: Option<u64>,
    between_messages: u64,
    left: Duration,
    /// What the master said of its own deadline.
    pub(super) masters_own: Option<Duration>,
    frozen_master: Option<Pid>,
    orphans: u64,
}

impl Waiting {
    pub(super) fn of(board: &Path, there: &[Process], left: Duration) -> Waiting {
        let master = there.iter().find(|process| process.is_master);
        let mut waiting = Waiting {
            connections: None,
            between_messages: 0,
            left,
            masters_own: None,
            frozen_master: master
                .map(|master| master.pid)
                .filter(|pid| is_suspended(*pid)),
            orphans: if master.is_none() {
                there.len() as u64
            } else {
                0
            },
        };
        if let Ok(snapshot) = scoreboard::read(board) {
            let connections = snapshot.requests();
            waiting.connections = Some(connections);
            waiting.between_messages = connections.saturating_sub(snapshot.in_progress());
            if snapshot.global.stop_deadline_ns > 0 && master.is_some() {
                let deadline = snapshot.global.stop_deadline_ns;
                let own = Duration::from_nanos(deadline.saturating_sub(snapshot.now_ns));
                waiting.masters_own = Some(own);
                waiting.left = own.min(A_DAY);
            }
        }
        waiting
    }

    fn sentence(&self) -> Option<String> {
        if let Some(pid) = self.frozen_master {
            return Some(suspended(pid));
        }
        if self.connections.is_none() && self.orphans > 0 {
            return Some(format!(
                "waiting: {} of a dead master, at most {}; Ctrl-C leaves it finishing, -INT ends it now",
                count(self.orphans, "orphan"),
                duration(self.left.as_secs_f64().round() as u64)
            ));
        }
        let connections = self.connections.filter(|number| *number > 0)?;
        let orphans = match self.orphans {
            0 => String::new(),
            number => format!(" in {}", count(number, "orphan")),
        };
        Some(format!(
            "waiting: {}{orphans}, {} idle between messages, at most {}; Ctrl-C leaves it stopping, -INT ends it now",
            count(connections, "connection"),
            self.between_messages,
            duration(self.left.as_secs_f64().round() as u64)
        ))
    }
}

/// What was said last: a line is repeated only when it tells something new.
#[derive(Default)]
pub(super) struct Told(Option<(Option<u64>, u64, u64, bool)>);

impl Told {
    pub(super) fn tell(&mut self, name: &MilterName, view: &Waiting) {
        let now = (
            view.connections,
            view.between_messages,
            view.orphans,
            view.frozen_master.is_some(),
        );
        if self.0 == Some(now) {
            return;
        }
        if let Some(sentence) = view.sentence() {
            say(format_args!("{name}: {sentence}"));
            self.0 = Some(now);
        }
    }
}

impl Told {
    /// Has a sentence been said?
    pub(super) fn anything(&self) -> bool {
        self.0.is_some()
    }
}

/// Who has nothing to wait for any more, and ends.
pub(super) fn ending(there: &[Process]) -> String {
    let master = there.iter().find(|process| process.is_master);
    let children = there.iter().filter(|process| !process.is_master).count();
    let children = match children {
        0 => None,
        1 => Some("1 child".to_owned()),
        number => Some(format!("{number} children")),
    };
    let master = master.map(|master| format!("master {}", master.pid));
    let who: Vec<String> = master.into_iter().chain(children).collect();
    format!("{} ending", join(&who))
}

/// What to do about a master that is stopped by a signal.
pub(super) fn suspended(pid: Pid) -> String {
    format!(
        "waiting: its master (pid {pid}) is suspended and cannot act; kill -CONT {pid} wakes it, stop -KILL ends it now"
    )
}

/// Is it stopped by a signal?
pub(super) fn is_suspended(pid: Pid) -> bool {
    process::stat(pid.as_raw()).is_some_and(|stat| stat.state == 'T')
}

/// Who still lives, and what to do about it.
pub(super) fn remains(
    signal: StopSignal,
    there: &[Process],
    suspended: impl Fn(Pid) -> bool,
) -> String {
    let master = there.iter().find(|process| process.is_master);
    let mut pids: Vec<String> = there
        .iter()
        .filter(|process| !process.is_master)
        .map(|process| process.pid.to_string())
        .collect();
    pids.dedup();
    let children = match (pids.len(), master) {
        (0, _) => None,
        (1, Some(_)) => Some(format!("child {}", pids[0])),
        (_, Some(_)) => Some(format!("children {}", pids.join(", "))),
        (1, None) => Some(format!("orphan {}", pids[0])),
        (_, None) => Some(format!("orphans {}", pids.join(", "))),
    };
    let frozen = master.is_some_and(|master| suspended(master.pid));
    let who: Vec<String> = master
        .map(|master| {
            let state = if frozen { " (suspended)" } else { "" };
            format!("master {}{state}", master.pid)
        })
        .into_iter()
        .chain(children)
        .collect();
    let next = match signal {
        StopSignal::Kill => "the kernel does not end them: see ps, state D".to_owned(),
        StopSignal::Int => "stop -KILL ends it at once".to_owned(),
        StopSignal::Hup | StopSignal::Term => match master {
            Some(master) if frozen => format!(
                "kill -CONT {} wakes the master, stop -KILL ends the milter at once",
                master.pid
            ),
            _ => "stop -INT aborts its connections and ends it".to_owned(),
        },
    };
    format!("{} still there; {next}", join(&who))
}

fn join(who: &[String]) -> String {
    match who {
        [one] => format!("{one} is"),
        all => format!("{} are", all.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> Waiting {
        Waiting {
            connections: Some(12),
            between_messages: 11,
            left: Duration::from_secs(270),
            masters_own: None,
            frozen_master: None,
            orphans: 0,
        }
    }

    #[test]
    fn a_stop_says_what_it_waits_for_and_how_long_at_most() {
        assert_eq!(
            waiting().sentence().as_deref(),
            Some(
                "waiting: 12 connections, 11 idle between messages, at most 4m30s; Ctrl-C leaves it stopping, -INT ends it now"
            )
        );
        let orphans = Waiting {
            orphans: 2,
            ..waiting()
        };
        assert!(
            orphans
                .sentence()
                .is_some_and(|text| text.contains("12 connections in 2 orphans,"))
        );
    }

    #[test]
    fn orphans_without_a_board_are_told_too() {
        let view = Waiting {
            connections: None,
            orphans: 1,
            ..waiting()
        };
        assert!(
            view.sentence()
                .is_some_and(|text| text.starts_with("waiting: 1 orphan of a dead master, at most"))
        );
    }

    #[test]
    fn nothing_is_said_while_only_processes_end() {
        for connections in [None, Some(0)] {
            let view = Waiting {
                connections,
                ..waiting()
            };
            assert_eq!(view.sentence(), None);
        }
    }

    #[test]
    fn a_suspended_master_is_named_with_what_to_do() {
        let view = Waiting {
            frozen_master: Some(Pid::from_raw(77)),
            ..waiting()
        };
        assert!(
            view.sentence()
                .is_some_and(|text| text.contains("kill -CONT 77") && text.contains("-KILL"))
        );
    }
}
