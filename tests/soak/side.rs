//! A milter of the soak, its clients, and all that happens to it in a storm.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Duration;

use scoreboard::Snapshot;

use crate::census::Peak;
use crate::changes::{self, Changes};
use crate::faults::{self, Faults};
use crate::readers;
use crate::support::SOON;
use crate::support::command::run;
use crate::support::ledger::{Counts, Ledger, POLICY, Random};
use crate::support::looks::{EndOf, Seen};
use crate::support::milter::{Milter, PROGRAM, pid};
use crate::support::totals::Totals;

/// Clients that hurry, and those that think between their steps, so that a restart finds sessions that go on.
const QUICK: u64 = 4;
const SLOW: u64 = 2;
/// Longest thought of a slow one.
const THOUGHT: Duration = Duration::from_millis(400);

/// What happens to a milter beside load and faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the same master all the time, and in slot 0 the same child.
    Kept,
    /// Restarts with other programs, configurations and policies, and attempts at bad ones.
    Changed,
}

impl Kind {
    /// In the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kept => "kept",
            Kind::Changed => "changed",
        }
    }

    /// The slot whose child is not harmed.
    pub(crate) fn spared(self) -> Option<usize> {
        (self == Kind::Kept).then_some(0)
    }
}

/// Children at the start and at rest, when the pool neither grows nor shrinks.
pub(crate) const CHILDREN: u64 = 4;

/// The settings for that.
pub(crate) fn settings() -> String {
    format!("{QUIET}max_pooled_procs = {CHILDREN}\nmin_pooled_procs = {CHILDREN}\n")
}

/// Also after hours the log can be read.
pub(crate) const QUIET: &str = "log_level = \"info\"\n";

/// A milter and all who deal with it.
pub(crate) struct Side {
    pub(crate) kind: Kind,
    pub(crate) milter: Milter,
    pub(crate) ledger: Ledger,
    pub(crate) master: i32,
    /// The child that is not harmed.
    pub(crate) spared: Option<i32>,
    /// What was known after the round before.
    pub(crate) last: Last,
    rounds: u64,
}

/// What was known at a rest.
#[derive(Clone, Copy, Default)]
pub(crate) struct Last {
    pub(crate) clients: Counts,
    pub(crate) totals: Totals,
    /// Deaths told.
    pub(crate) deaths: u64,
    /// Quits so far that nobody knows whether they were read.
    pub(crate) doubtful: u64,
}

/// What happened in the storm of a round.
pub(crate) struct Storm {
    pub(crate) faults: Faults,
    pub(crate) changes: Changes,
    /// By `pread`, a map, `status --format json`.
    pub(crate) seen: [Seen; 3],
    pub(crate) peak: Peak,
}

impl Side {
    pub(crate) fn started(kind: Kind) -> Side {
        let milter = Milter::started(POLICY, &settings());
        if kind == Kind::Changed {
            // Not by this process: another thread's child would hold the file open for writing, and it could not be executed.
            let mut copy = Command::new("cp");
            copy.arg(PROGRAM).arg(milter.path("pmx-milter"));
            run(copy, SOON).expect(0);
        }
        let master = milter.master();
        let json = milter.wait_json("its children are there", |json| {
            json["pool"]["slots_high_water"] == CHILDREN
        });
        let spared = kind.spared().map(|slot| pid(&json["slots"][slot]["pid"]));
        Side {
            kind,
            milter,
            ledger: Ledger::default(),
            master,
            spared,
            last: Last::default(),
            rounds: 0,
        }
    }

    /// Its board.
    pub(crate) fn board_path(&self) -> PathBuf {
        self.milter.run_dir().join("policy.scoreboard")
    }

    /// What the board says.
    pub(crate) fn board(&self) -> Snapshot {
        scoreboard::read(&self.board_path()).unwrap()
    }

    /// Load, faults, changes and readers until it is over.
    pub(crate) fn storm(&mut self, seed: u64, over: &AtomicBool) -> Storm {
        self.rounds += 1;
        let side = &*self;
        scope(|scope| {
            // Whoever fails ends the others.
            let _end = EndOf(over);
            let faults = scope.spawn(move || {
                let _end = EndOf(over);
                faults::strike(side, &mut Random(seed << 1 | 1), over)
            });
            let changes = (side.kind == Kind::Changed).then(|| {
                scope.spawn(move || {
                    let _end = EndOf(over);
                    changes::make(side, &mut Random(seed << 2 | 1), over)
                })
            });
            for client in 0..QUICK + SLOW {
                scope.spawn(move || {
                    let _end = EndOf(over);
                    side.client(client, seed, |_| over.load(Ordering::SeqCst));
                });
            }
            let seen = [readers::by_pread, readers::by_map, readers::by_json];
            let seen = seen.map(|reader| {
                scope.spawn(move || {
                    let _end = EndOf(over);
                    reader(side, over)
                })
            });
            let peak = Peak::watched(side, over);
            Storm {
                faults: faults.join().unwrap(),
                changes: changes.map_or(Changes::default(), |it| it.join().unwrap()),
                seen: seen.map(|reader| reader.join().unwrap()),
                peak,
            }
        })
    }

    /// One session after the other until there are enough. The port is never closed.
    fn client(&self, client: u64, seed: u64, enough: impl Fn(u64) -> bool) {
        let address = self.milter.address();
        let mut random = Random(seed.wrapping_mul(QUICK + SLOW).wrapping_add(client) | 1);
        let mut session = 0;
        while !enough(session) {
            let name = format!("R{}x{client}x{session}", self.rounds);
            let talked = if client < QUICK {
                self.ledger.session(&address, &name, &mut random)
            } else {
                let ledger = &self.ledger;
                ledger.session_with_pauses(&address, &name, &mut random, THOUGHT)
            };
            talked.unwrap_or_else(|error| panic!("client {client}: refused: {error}"));
            session += 1;
        }
    }

    /// So many sessions of each quick client, without faults.
    pub(crate) fn calm(&mut self, sessions: u64) {
        self.rounds += 1;
        let side = &*self;
        scope(|scope| {
            for client in 0..QUICK {
                scope.spawn(move || side.client(client, side.rounds, |done| done == sessions));
            }
        });
    }

    /// It stops as it should, with nothing left and nothing odd in its log.
    pub(crate) fn ended(self) {
        self.milter.stop();
        assert_eq!(self.milter.processes(), Vec::<i32>::new());
        assert_eq!(self.milter.left_behind(), ["policy.scoreboard.last"]);
        assert!(!self.milter.log().contains("panicked"));
    }
}
