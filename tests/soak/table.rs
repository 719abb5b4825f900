//! The table of a soak: a row for each round and milter.

use nix::sys::signal::Signal;

use crate::census::Sample;
use crate::rest::Found;
use crate::side::Kind;

/// Explanation and heads of the columns.
pub(crate) fn head() -> String {
    let columns = format!(
        "{:>5} {:<7} {:>8} {:>8} {:>8} {:>13} {:>6} {:>9} {:>9} {:>13} {:>18} {:>11} {:>14} {:>9} {:>9}",
        "round",
        "milter",
        "sessions",
        "messages",
        "restarts",
        "killed",
        "deaths",
        "lost",
        "errors",
        "books",
        "master KiB",
        "descriptors",
        "child KiB",
        "spared",
        "torn",
    );
    format!(
        "restarts: done/refused/given up; killed: KILL/SEGV/ABRT, and stopped for a while; lost: connections/messages; errors of clients: explained by a kill/others;\n\
         books: balanced at every look; of so many looks, so many to the unit; master: resident memory/of this its own, at rest (most in the storm);\n\
         descriptors of the master, child: the largest one, likewise; spared: own memory of the child that nobody harms; torn: copies that readers got not whole, and knew it\n{columns}"
    )
}

/// A round of a milter.
pub(crate) fn row(round: u64, kind: Kind, found: &Found) -> String {
    let killed = |signal| {
        found
            .kills
            .iter()
            .filter(|kill| kill.signal == signal)
            .count()
    };
    let descriptors = |sample: &Sample| match sample.descriptors {
        Some(count) => count.to_string(),
        None => "-".to_owned(),
    };
    let spared = found
        .spared
        .map_or("-".to_owned(), |it| it.own_kib.to_string());
    let changes = &found.changes;
    format!(
        "{round:>5} {:<7} {:>8} {:>8} {:>8} {:>13} {:>6} {:>9} {:>9} {:>13} {:>18} {:>11} {:>14} {:>9} {:>9}",
        kind.name(),
        found.sessions,
        found.messages,
        format!("{}/{}/{}", changes.done, changes.refused, changes.given_up),
        format!(
            "{}/{}/{} +{}",
            killed(Signal::SIGKILL),
            killed(Signal::SIGSEGV),
            killed(Signal::SIGABRT),
            found.stops
        ),
        found.deaths,
        format!("{}/{}", found.lost_connections, found.lost_messages),
        format!("{}/{}", found.explained, found.unexplained),
        format!("{}:{}", found.looks, found.exact),
        format!(
            "{}/{} ({})",
            found.master.rss_kib, found.master.own_kib, found.peak.master.rss_kib
        ),
        format!(
            "{} ({})",
            descriptors(&found.master),
            descriptors(&found.peak.master)
        ),
        format!("{} ({})", found.child_rss_kib, found.peak.child_rss_kib),
        spared,
        found.torn,
    )
}
