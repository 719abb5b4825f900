//! What probes are told, from the board. *Healthy*: there is a master that gives signs of life; if not, somebody should restart it. *Ready*:
//! it takes connections. A full milter is both: its connections wait, and whoever moved them elsewhere would fill the others.
#![forbid(unsafe_code)]

use scoreboard::{NotAccepting, SlotState};

use crate::control::status::headline;
use crate::control::status::view::{State, View};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
}

/// Whether all of these are well, and a line for each. Nothing to be asked about is not well.
pub(super) fn probe(what: Probe, milters: &[&View]) -> (bool, String) {
    let mut text = String::new();
    let mut well = !milters.is_empty();
    for view in milters {
        let trouble = trouble(what, view);
        let line = trouble.as_deref().unwrap_or("ok");
        text.push_str(&format!("{}: {line}\n", view.name));
        well &= trouble.is_none();
    }
    if milters.is_empty() {
        text.push_str("no milter is enabled or running\n");
    }
    (well, text)
}

fn trouble(what: Probe, view: &View) -> Option<String> {
    let fit = match (what, view.state) {
        (_, State::Running) => true,
        (Probe::Health, state) => matches!(state, State::Starting | State::Retiring),
        (Probe::Ready, _) => false,
    };
    if !fit {
        return Some(headline(view));
    }
    let board = view.board.as_ref().filter(|_| what == Probe::Ready)?;
    match NotAccepting::from_word(board.global.not_accepting) {
        NotAccepting::Accepting | NotAccepting::Full | NotAccepting::Limit => {}
        reason => return Some(format!("takes no connections ({})", reason.name())),
    }
    let takes = |slot: &scoreboard::Slot| slot.state() == SlotState::Live;
    let reason = match board.global.crash_loop {
        0 => "no child is ready",
        _ => "no child is ready, they die young: its log tells why",
    };
    (!board.slots.iter().any(takes)).then(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::tests::{board, slot, view};

    /// What health and readiness say of a milter.
    fn both(view: &View) -> (String, String) {
        let [health, ready] = [Probe::Health, Probe::Ready].map(|what| {
            let (well, text) = probe(what, &[view]);
            assert_eq!(well, text == "m: ok\n", "{text}");
            text.trim_start_matches("m: ").trim_end().to_owned()
        });
        (health, ready)
    }

    #[test]
    fn what_gives_signs_of_life_is_healthy_and_what_takes_connections_is_ready() {
        for (state, health, ready) in [
            (State::Starting, "ok", "starting"),
            (State::Running, "ok", "ok"),
            (State::Retiring, "ok", "retiring"),
            (
                State::Hung,
                "hung (heartbeat 0 s old)",
                "hung (heartbeat 0 s old)",
            ),
            (
                State::Stopped,
                "stopped (heartbeat 0 s old)",
                "stopped (heartbeat 0 s old)",
            ),
            (
                State::Dead,
                "dead (heartbeat 0 s old)",
                "dead (heartbeat 0 s old)",
            ),
            (State::NotRunning, "not running", "not running"),
            (State::Unreadable, "unreadable", "unreadable"),
        ] {
            let there = !matches!(state, State::NotRunning | State::Unreadable);
            let board = there.then(|| board(vec![slot(0, 7, (1, 0), 0, 1, 0)]));
            let expected = (health.to_owned(), ready.to_owned());
            assert_eq!(both(&view("m", state, board)), expected, "{state:?}");
        }
    }

    #[test]
    fn a_full_milter_is_ready_and_one_without_children_is_not() {
        let of = |reason: NotAccepting, slots, crash_loop| {
            let mut board = board(slots);
            board.global.not_accepting = reason.word();
            board.global.crash_loop = crash_loop;
            let (health, ready) = both(&view("m", State::Running, Some(board)));
            assert_eq!(health, "ok");
            ready
        };
        let live = || vec![slot(0, 7, (1, 0), 0, 1, 0)];
        let starting = || {
            let mut slot = slot(0, 7, (0, 0), 0, 1, 0);
            slot.master.state = SlotState::Starting.word();
            vec![slot]
        };
        assert_eq!(of(NotAccepting::Full, live(), 0), "ok");
        assert_eq!(of(NotAccepting::Limit, live(), 0), "ok");
        assert_eq!(
            of(NotAccepting::Accepting, starting(), 0),
            "no child is ready"
        );
        assert_eq!(
            of(NotAccepting::Accepting, Vec::new(), 3),
            "no child is ready, they die young: its log tells why"
        );
        assert_eq!(
            of(NotAccepting::Resources, live(), 0),
            "takes no connections (resources)"
        );
    }

    #[test]
    fn of_several_all_must_be_well_and_of_none_nothing_is() {
        let well = view(
            "a",
            State::Running,
            Some(board(vec![slot(0, 7, (1, 0), 0, 1, 0)])),
        );
        let dead = view("b", State::NotRunning, None);
        let (ok, text) = probe(Probe::Health, &[&well, &dead]);
        assert_eq!((ok, &*text), (false, "a: ok\nb: not running\n"));
        assert!(!probe(Probe::Health, &[]).0);
    }
}
