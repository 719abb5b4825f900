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
    /// Connections that one child carries; `None`: no bound.
    pub(super) capacity: Option<u64>,
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
pub(super) fn has_room(child: &ChildView, capacity: Option<u64>) -> bool {
    child.ready
        && !child.retiring
        && !child.unresponsive
        && capacity.is_none_or(|capacity| child.requests < capacity)
}

/// Who takes the next connection: the lowest idle child, else the emptier of two at random. A child that lies about its load gains
/// at most what it can carry.
pub(super) fn choose(children: &[ChildView], capacity: Option<u64>, random: u64) -> Option<u32> {
    let open: Vec<&ChildView> = children
        .iter()
        .filter(|child| has_room(child, capacity))
        .collect();
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
    let serving: Vec<&ChildView> = children.iter().filter(|child| !child.retiring).collect();
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
            capacity: Some(2),
        }
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
        assert_eq!(choose(&[leaving, child(1, 2)], Some(2), 7), None);
        assert_eq!(choose(&[leaving, child(1, 1)], Some(2), 7), Some(1));
        assert_eq!(
            choose(&[child(0, 1), child(1, 0)], Some(2), 7),
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
        let mut starting = child(1, 0);
        starting.ready = false;
        assert!(
            !should_grow(&[child(0, 1), starting], &bounds(1, 3)),
            "one is coming"
        );
    }
}
