//! What a pool needs next: a pure function of what the master sees and the clock. Nothing here touches a process.
//!
//! Children are kept at the minimum, idle ones above it go away, and one that has reached a limit retires while there is a slot for its
//! successor: retirement must never starve the pool (Apache's PR 53555).
#![forbid(unsafe_code)]

use std::time::Duration;

use scoreboard::records::RetireReason;

/// One child as the pool sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChildView {
    /// Its slot.
    pub(super) slot: u32,
    /// It has said that it is ready.
    pub(super) ready: bool,
    /// It takes no more connections.
    pub(super) retiring: bool,
    /// It leaves connections unread.
    pub(super) unresponsive: bool,
    /// It runs the configuration and policy of before a restart.
    pub(super) old: bool,
    /// Connections that it carries; `None`: no bound.
    pub(super) capacity: Option<u64>,
    /// Connections in progress that the policy serves.
    pub(super) requests: u64,
    /// Since when it has none.
    pub(super) idle: Duration,
    /// Since its fork.
    pub(super) age: Duration,
    /// Connections handed to it.
    pub(super) connections: u64,
    /// Messages that it processed.
    pub(super) messages: u64,
    /// Resident bytes.
    pub(super) rss: u64,
    /// Its own limits, jitter included; 0 and zero: none.
    pub(super) limits: Limits,
}

/// When a child retires.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// Connections.
    pub(super) connections: u64,
    /// Messages.
    pub(super) messages: u64,
    /// Age.
    pub(super) age: Duration,
    /// Resident bytes.
    pub(super) rss: u64,
}

/// What holds for the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Children always kept.
    pub(super) min: u32,
    /// Most children beside retiring ones.
    pub(super) max: u32,
    /// Slots.
    pub(super) slots: u32,
    /// `pooled_proc_idle_limit`; zero: never.
    pub(super) idle_limit: Duration,
    /// Children of the new generation that a restart brings in before the last old one retires.
    pub(super) successors: u32,
}

/// How a connection is to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// By the policy: within the child's capacity.
    Served,
    /// Answered without the policy: beside it.
    Marked,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Fork a child.
    Fork,
    /// Retire the child of this slot.
    Retire(u32, RetireReason),
}

/// What the pool needs now. Forking is the caller's to delay after children died young.
pub(super) fn maintain(children: &[ChildView], bounds: &Bounds) -> Vec<Action> {
    if children.iter().any(|child| child.old && !child.retiring) {
        return exchange(children, bounds);
    }
    let mut actions = Vec::new();
    let mut free = u64::from(bounds.slots).saturating_sub(children.len() as u64);
    let mut serving = children.iter().filter(|child| !child.retiring).count() as u64;
    for child in children
        .iter()
        .filter(|child| child.ready && !child.retiring)
    {
        let Some(reason) = reached(child) else {
            continue;
        };
        // Its successor needs a slot beside it.
        if free == 0 {
            break;
        }
        actions.push(Action::Retire(child.slot, reason));
        serving -= 1;
        if serving < u64::from(bounds.min) {
            free -= 1;
        }
    }
    let retired = |slot| actions.contains(&Action::Retire(slot, RetireReason::Idle));
    // One a turn: a pool shrinks gently.
    let idlest = children
        .iter()
        .filter(|child| child.ready && !child.retiring && !retired(child.slot))
        .filter(|child| {
            child.requests == 0 && child.idle >= bounds.idle_limit && reached(child).is_none()
        })
        .max_by_key(|child| (child.idle, child.slot));
    if let Some(child) = idlest
        && !bounds.idle_limit.is_zero()
        && serving > u64::from(bounds.min)
    {
        actions.push(Action::Retire(child.slot, RetireReason::Idle));
    }
    let missing = u64::from(bounds.min).saturating_sub(serving);
    let room = u64::from(bounds.slots).saturating_sub(children.len() as u64);
    for _ in 0..missing.min(room) {
        actions.push(Action::Fork);
    }
    actions
}

/// What a restart needs now: children of the new generation as slots allow, and for each that is ready one old one less. While none is
/// ready the old ones all stay, at their limits too, and the last one stays until all successors are there: capacity never falls to zero.
fn exchange(children: &[ChildView], bounds: &Bounds) -> Vec<Action> {
    let new = children
        .iter()
        .filter(|child| !child.old && !child.retiring);
    let ready = new.clone().filter(|child| child.ready).count() as u64;
    let wanted = u64::from(bounds.successors.clamp(bounds.min, bounds.max));
    let room = u64::from(bounds.slots).saturating_sub(children.len() as u64);
    let missing = wanted.saturating_sub(new.count() as u64);
    let forks = (0..missing.min(room)).map(|_| Action::Fork);
    let mut old: Vec<&ChildView> = children
        .iter()
        .filter(|child| child.old && !child.retiring)
        .collect();
    // Who has least to finish gives its slot back first.
    old.sort_by_key(|child| (child.requests, child.slot));
    let stay = if ready == 0 {
        u64::MAX
    } else {
        wanted.saturating_sub(ready)
    };
    let go = (old.len() as u64).saturating_sub(stay);
    let retire = (0..go)
        .zip(old)
        .map(|(_, child)| Action::Retire(child.slot, RetireReason::Restart));
    retire.chain(forks).collect()
}

/// Children of the new generation that a restart brings in: as many as are busy, so that the load finds what it had; the others are
/// forked when they are needed.
pub(super) fn successors(children: &[ChildView]) -> u32 {
    let busy = children
        .iter()
        .filter(|child| !child.retiring && child.requests > 0);
    u32::try_from(busy.count()).unwrap_or(u32::MAX)
}

fn reached(child: &ChildView) -> Option<RetireReason> {
    let limits = &child.limits;
    let over = |value: u64, limit: u64| limit != 0 && value >= limit;
    if over(child.connections, limits.connections) {
        Some(RetireReason::Connections)
    } else if over(child.messages, limits.messages) {
        Some(RetireReason::Messages)
    } else if !limits.age.is_zero() && child.age >= limits.age {
        Some(RetireReason::Age)
    } else if over(child.rss, limits.rss) {
        Some(RetireReason::Rss)
    } else {
        None
    }
}

/// May this child take a connection? One at its limit that cannot retire yet goes on: better old than nobody.
pub(super) fn has_room(child: &ChildView, load: Load) -> bool {
    child.ready
        && !child.retiring
        && !child.unresponsive
        && (load == Load::Marked || child.capacity.is_none_or(|most| child.requests < most))
}

/// Who takes the next connection: the lowest idle child, else the emptier of two at random; one of before a restart only when no other has
/// room. A child that lies about its load gains at most what it can carry.
pub(super) fn choose(children: &[ChildView], load: Load, random: u64) -> Option<u32> {
    let (new, old): (Vec<&ChildView>, Vec<&ChildView>) = children
        .iter()
        .filter(|child| has_room(child, load))
        .partition(|child| !child.old);
    let open = if new.is_empty() { old } else { new };
    if let Some(idle) = open
        .iter()
        .filter(|child| child.requests == 0)
        .min_by_key(|child| child.slot)
    {
        return Some(idle.slot);
    }
    let count = u64::try_from(open.len()).ok().filter(|count| *count > 0)?;
    let pick = |number: u64| {
        usize::try_from(number % count)
            .ok()
            .and_then(|index| open.get(index))
    };
    let (first, second) = (pick(random)?, pick(random >> 32)?);
    Some(if second.requests < first.requests {
        second.slot
    } else {
        first.slot
    })
}

/// Should another child be forked for a connection that arrives now?
pub(super) fn should_grow(children: &[ChildView], bounds: &Bounds) -> bool {
    let serving: Vec<&ChildView> = children
        .iter()
        .filter(|child| !child.retiring && !child.old)
        .collect();
    (serving.len() as u64) < u64::from(bounds.max)
        && (children.len() as u64) < u64::from(bounds.slots)
        && serving
            .iter()
            .all(|child| child.ready && (child.requests > 0 || child.unresponsive))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn child(slot: u32, requests: u64) -> ChildView {
        ChildView {
            slot,
            ready: true,
            retiring: false,
            unresponsive: false,
            old: false,
            capacity: Some(2),
            requests,
            idle: if requests == 0 { HOUR } else { Duration::ZERO },
            age: HOUR,
            connections: 10,
            messages: 10,
            rss: 1 << 20,
            limits: Limits::default(),
        }
    }

    fn bounds(min: u32, max: u32) -> Bounds {
        Bounds {
            min,
            max,
            slots: 2 * max,
            idle_limit: Duration::from_secs(300),
            successors: 0,
        }
    }

    fn old(slot: u32, requests: u64) -> ChildView {
        ChildView {
            old: true,
            ..child(slot, requests)
        }
    }

    fn starting(slot: u32) -> ChildView {
        ChildView {
            ready: false,
            ..child(slot, 0)
        }
    }

    fn exchanging(min: u32, max: u32, successors: u32) -> Bounds {
        Bounds {
            successors,
            ..bounds(min, max)
        }
    }

    #[test]
    fn a_restart_brings_in_as_many_as_are_busy_before_the_last_old_one_goes() {
        let retire = |slot| Action::Retire(slot, RetireReason::Restart);
        let pool = [old(0, 1), old(1, 2), old(2, 0)];
        let bounds = exchanging(1, 4, successors(&pool));
        assert_eq!(maintain(&pool, &bounds), [Action::Fork, Action::Fork]);
        let with = |more: &[ChildView]| [&pool[..], more].concat();
        let pool_now = with(&[starting(3), starting(4)]);
        assert_eq!(maintain(&pool_now, &bounds), [], "none is ready");
        let pool_now = with(&[child(3, 0), starting(4)]);
        assert_eq!(maintain(&pool_now, &bounds), [retire(2), retire(0)]);
        let pool_now = with(&[child(3, 0), child(4, 0)]);
        assert_eq!(
            maintain(&pool_now, &bounds),
            [retire(2), retire(0), retire(1)]
        );
    }

    #[test]
    fn a_restart_waits_for_slots_and_the_old_ones_serve_on_at_their_limits_too() {
        let mut worn = old(0, 1);
        worn.limits.connections = 1;
        let mut leaving = old(1, 1);
        leaving.retiring = true;
        let bounds = exchanging(1, 1, 1);
        assert_eq!(maintain(&[worn, leaving], &bounds), []);
        assert_eq!(maintain(&[worn], &bounds), [Action::Fork]);
        assert_eq!(choose(&[worn, leaving], Load::Served, 7), Some(0));
    }

    #[test]
    fn connections_go_to_the_new_generation_and_to_the_old_one_only_when_it_is_full() {
        let choose = |pool: &[ChildView]| choose(pool, Load::Served, 7);
        assert_eq!(choose(&[old(0, 0), child(1, 1)]), Some(1));
        assert_eq!(choose(&[old(0, 1), child(1, 2)]), Some(0));
        assert_eq!(choose(&[old(0, 0), starting(1)]), Some(0));
    }

    #[test]
    fn an_empty_pool_is_filled_to_the_minimum() {
        assert_eq!(maintain(&[], &bounds(2, 4)), [Action::Fork, Action::Fork]);
        assert_eq!(maintain(&[child(0, 1)], &bounds(1, 4)), []);
    }

    #[test]
    fn idle_children_above_the_minimum_go_one_a_turn() {
        let pool = [child(0, 0), child(1, 0), child(2, 1)];
        assert_eq!(
            maintain(&pool, &bounds(1, 4)),
            [Action::Retire(1, RetireReason::Idle)]
        );
        assert_eq!(maintain(&pool, &bounds(3, 4)), []);
    }

    #[test]
    fn a_child_at_its_limit_retires_and_is_replaced_at_once() {
        let mut old = child(0, 1);
        old.limits.connections = 10;
        assert_eq!(
            maintain(&[old], &bounds(1, 1)),
            [Action::Retire(0, RetireReason::Connections), Action::Fork]
        );
    }

    #[test]
    fn retirement_waits_while_no_slot_is_free() {
        let mut old = child(0, 1);
        old.limits.messages = 5;
        let mut leaving = child(1, 1);
        leaving.retiring = true;
        assert_eq!(maintain(&[old, leaving], &bounds(1, 1)), []);
    }

    #[test]
    fn nobody_is_overfilled_and_retiring_children_get_nothing() {
        let mut leaving = child(0, 0);
        leaving.retiring = true;
        assert_eq!(choose(&[leaving, child(1, 2)], Load::Served, 7), None);
        assert_eq!(choose(&[leaving, child(1, 1)], Load::Served, 7), Some(1));
        assert_eq!(
            choose(&[child(0, 1), child(1, 0)], Load::Served, 7),
            Some(1),
            "the idle one"
        );
    }

    #[test]
    fn the_pool_grows_when_every_child_has_a_connection() {
        assert!(should_grow(&[child(0, 1)], &bounds(1, 2)));
        assert!(!should_grow(&[child(0, 0)], &bounds(1, 2)), "one is idle");
        assert!(
            !should_grow(&[child(0, 1), child(1, 1)], &bounds(1, 2)),
            "the pool is full"
        );
        assert!(
            !should_grow(&[child(0, 1), starting(1)], &bounds(1, 3)),
            "one is coming"
        );
    }
}
