//! Restarts in a storm: with another file of the program, another configuration, another policy; and attempts that must be refused.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::side::{QUIET, Side};
use crate::support::ledger::{POLICY, Random};
use crate::support::milter::PROGRAM;

/// What came of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    /// A new generation took over.
    pub(crate) done: u64,
    /// The configuration or the policy was bad.
    pub(crate) refused: u64,
    /// Its first children were killed one after another, so that the old ones went on.
    pub(crate) given_up: u64,
}

/// Restarts now and then until it is over.
pub(crate) fn make(side: &Side, random: &mut Random, over: &AtomicBool) -> Changes {
    let programs = [PathBuf::from(PROGRAM), side.milter.path("pmx-milter")];
    let mut changes = Changes::default();
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(200 + random.below(1800)));
        number += 1;
        match random.below(8) {
            0 => {
                side.milter.write_policy("return nonsense(");
                refused(side);
                changes.refused += 1;
            }
            1 => {
                side.milter.configure("max_pooled_prox = 3");
                refused(side);
                changes.refused += 1;
            }
            _ => {
                side.milter.write_policy(&format!("{POLICY}-- {number}\n"));
                side.milter.configure(&settings(random));
                let program = &programs[random.below(2) as usize];
                if restart(side, program) {
                    changes.done += 1;
                } else {
                    changes.given_up += 1;
                }
            }
        }
    }
    changes
}

/// Tries a bad restart: the running milter is untouched.
fn refused(side: &Side) {
    let generation = side.board().global.generation;
    side.milter.pmx(&["restart"]).expect(6).says("untouched");
    assert_eq!(side.board().global.generation, generation);
    // For the next one.
    side.milter.write_policy(POLICY);
    side.milter.configure(QUIET);
}

/// Restarts; false when its children were killed faster than they came.
fn restart(side: &Side, program: &Path) -> bool {
    let generation = side.board().global.generation;
    let outcome = side.milter.pmx_by(program, &["restart"]);
    assert_eq!(
        side.board().global.generation,
        generation + 1,
        "{}",
        outcome.err
    );
    if outcome.code == 0 {
        return true;
    }
    outcome
        .expect(1)
        .says("no child of the new generation comes up");
    false
}

/// Another configuration: every key that changes what processes there are and how long they live.
fn settings(random: &mut Random) -> String {
    let mut one_of = |values: &[&'static str]| values[random.below(values.len() as u64) as usize];
    let max = one_of(&["0", "1", "2", "4", "8"]);
    let min = if max == "8" { one_of(&["1", "3"]) } else { "1" };
    let lines = [
        ("max_pooled_procs", max),
        ("min_pooled_procs", min),
        ("interpreters", one_of(&["1", "2", "3"])),
        ("interpreter_connections", one_of(&["4", "64", "256"])),
        ("reinit_limit", one_of(&["0", "7", "50"])),
        ("pooled_proc_idle_limit", one_of(&["\"100ms\"", "\"5m\""])),
        ("pooled_proc_connect_limit", one_of(&["0", "0", "20"])),
        ("pooled_proc_message_limit", one_of(&["0", "0", "25"])),
        ("pooled_proc_age_limit", one_of(&["0", "0", "\"2s\""])),
        ("listen_queue_size", one_of(&["16", "128"])),
        ("sandbox", one_of(&["true", "true", "false"])),
    ];
    let line = |(key, value): &(&str, &str)| format!("{key} = {value}\n");
    QUIET.to_owned() + &lines.iter().map(line).collect::<String>()
}
