//! A child as it crosses an exec: what its master knew of it, and the numbers of the descriptors.
//!
//! Times cross as ages: a clock's zero is nobody's business.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{Child, Limits, Terms};
use crate::sys::control_page::{ControlPage, Word};
use crate::sys::exec::{self, Inherited};

/// A child in words.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::master) struct ChildState {
    pub(in crate::master) pid: i32,
    control: RawFd,
    far_end: RawFd,
    page: RawFd,
    ready: bool,
    retiring: bool,
    unresponsive: bool,
    heard_before: u64,
    age_ns: u64,
    idle_ns: u64,
    unread_ns: Option<u64>,
    completed: u64,
    taken: u64,
    marked: u64,
    marked_returned: u64,
    marked_completed: u64,
    due: Vec<u8>,
    killed: bool,
    late_until: Option<u64>,
    generation: u64,
    capacity: Option<u64>,
    interpreters: u32,
    limit_connections: u64,
    limit_messages: u64,
    limit_age_ns: u64,
    limit_rss: u64,
}

pub(in crate::master) fn ago(now: Instant, then: Instant) -> u64 {
    let age = now.saturating_duration_since(then);
    u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)
}

pub(in crate::master) fn back(now: Instant, age_ns: u64) -> Instant {
    now.checked_sub(Duration::from_nanos(age_ns)).unwrap_or(now)
}

impl Child {
    /// In words.
    pub(in crate::master) fn hand_over(&self, now: Instant) -> ChildState {
        ChildState {
            pid: self.pid.as_raw(),
            control: exec::number(&self.control),
            far_end: exec::number(&self.far_end),
            page: exec::number(&self.page_descriptor),
            ready: self.ready,
            retiring: self.retiring,
            unresponsive: self.unresponsive,
            heard_before: self.heard_before,
            age_ns: ago(now, self.forked),
            idle_ns: ago(now, self.idle_since),
            unread_ns: self.unread_since.map(|since| ago(now, since)),
            completed: self.completed,
            taken: self.taken,
            marked: self.marked,
            marked_returned: self.marked_returned,
            marked_completed: self.marked_completed,
            due: self.due.clone(),
            killed: self.killed,
            late_until: self.late_until,
            generation: self.terms.generation,
            capacity: self.terms.capacity,
            interpreters: self.terms.interpreters,
            limit_connections: self.terms.limits.connections,
            limit_messages: self.terms.limits.messages,
            limit_age_ns: u64::try_from(self.terms.limits.age.as_nanos()).unwrap_or(u64::MAX),
            limit_rss: self.terms.limits.rss,
        }
    }

    /// The descriptors that must stay open.
    pub(in crate::master) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.control.as_fd(),
            self.far_end.as_fd(),
            self.page_descriptor.as_fd(),
        ]
    }

    /// Takes a child up.
    ///
    /// # Errors
    /// When a descriptor is missing or is not what it should be.
    pub(in crate::master) fn take_up(
        state: &ChildState,
        inherited: &mut Inherited,
        now: Instant,
    ) -> io::Result<Child> {
        let page_descriptor = inherited.take(state.page)?;
        let page = ControlPage::take_up(&page_descriptor)?;
        Ok(Child {
            pid: Pid::from_raw(state.pid),
            control: inherited.take_socket(state.control)?,
            far_end: inherited.take_socket(state.far_end)?,
            // What was lost before has been told.
            lines_lost: page.load(Word::LinesLost),
            page,
            page_descriptor,
            ready: state.ready,
            retiring: state.retiring,
            unresponsive: state.unresponsive,
            heard_before: state.heard_before,
            forked: back(now, state.age_ns),
            idle_since: back(now, state.idle_ns),
            unread_since: state.unread_ns.map(|age| back(now, age)),
            completed: state.completed,
            taken: state.taken,
            progressed: false,
            unheralded: false,
            marked: state.marked,
            marked_returned: state.marked_returned,
            marked_completed: state.marked_completed,
            due: state.due.clone(),
            killed: state.killed,
            killed_for: None,
            late_until: state.late_until,
            damaged: false,
            terms: Terms {
                generation: state.generation,
                capacity: state.capacity,
                interpreters: state.interpreters,
                limits: Limits {
                    connections: state.limit_connections,
                    messages: state.limit_messages,
                    age: Duration::from_nanos(state.limit_age_ns),
                    rss: state.limit_rss,
                },
            },
        })
    }
}
