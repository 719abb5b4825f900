//! One connection of an interpreter: a pure session with a socket, what is left to read and write, and the call in hand.
//!
//! At rest it owns no buffer: what an idle session costs is this struct, the session and the policy's context.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use super::meter::Timing;
use crate::policy::{Context, Interpreter, Suspended, Wake};
use crate::session::Session;

/// What is awaited of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Bytes of the MTA.
    Read,
    /// Only its end: a callback is suspended and more bytes came.
    End,
    /// Room to write.
    Write,
}

/// A callback in hand.
pub(super) struct Call {
    pub(super) suspended: Suspended,
    pub(super) deadline: Instant,
}

/// One connection.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) session: Session,
    pub(super) ctx: Context,
    pub(super) engine: Rc<Interpreter>,
    /// Bytes read and not yet used: half a frame, or what came behind a suspended callback.
    pub(super) rest: Vec<u8>,
    /// Bytes not yet taken by the kernel.
    pub(super) unsent: Vec<u8>,
    pub(super) call: Option<Box<Call>>,
    /// Number of the call, so that an old timer is known as such.
    pub(super) calls: u32,
    /// When the first callback since the last reply began.
    pub(super) group: Option<Instant>,
    /// When the MTA gets its next progress packet, while a callback at eom is in hand.
    pub(super) next_progress: Option<Instant>,
    /// The phase that it is in, and what it took.
    pub(super) timing: Timing,
    /// When the message in progress began.
    pub(super) message_since: Option<Instant>,
    /// When bytes last came or went.
    pub(super) last: Instant,
    /// Since when half a frame lies in `rest`.
    pub(super) partial: Option<Instant>,
    pub(super) interest: Interest,
    /// It ends; only its last callbacks are awaited.
    pub(super) closing: bool,
    /// It gets an overload answer.
    pub(super) marked: bool,
}

impl Connection {
    /// Has its callback used up its slice of processor time, so that it waits for its next turn only?
    pub(super) fn is_sliced(&self) -> bool {
        self.call
            .as_ref()
            .is_some_and(|call| matches!(call.suspended.wake, Wake::Yielded))
    }
}

/// The connections of an interpreter, by key: index in the low half, generation in the high half, so that an event of a connection that has
/// gone never meets its successor.
#[derive(Default)]
pub(super) struct Connections {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
}

#[derive(Default)]
struct Place {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Connections {
    /// Number of connections.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// A key for a connection to come.
    pub(super) fn reserve(&mut self) -> u64 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(Place::default());
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.count += 1;
        key(self.places[index as usize].generation, index)
    }

    /// The connection leaves its place while it is worked on.
    pub(super) fn take(&mut self, key: u64) -> Option<Box<Connection>> {
        let place = self.places.get_mut(index(key))?;
        if key >> 32 == u64::from(place.generation) {
            place.connection.take()
        } else {
            None
        }
    }

    /// It is back.
    pub(super) fn put(&mut self, key: u64, connection: Box<Connection>) {
        if let Some(place) = self.places.get_mut(index(key)) {
            place.connection = Some(connection);
        }
    }

    /// A connection that is in its place.
    pub(super) fn get(&self, key: u64) -> Option<&Connection> {
        let place = self.places.get(index(key))?;
        let connection = place.connection.as_deref()?;
        (key >> 32 == u64::from(place.generation)).then_some(connection)
    }

    /// Its place is free: the key means nothing any more.
    pub(super) fn release(&mut self, key: u64) {
        if let Some(place) = self.places.get_mut(index(key)) {
            // 31 bits: the top bit is left to the keys that are no connections.
            place.generation = (place.generation + 1) & 0x7fff_ffff;
            self.free.push((key & 0xffff_ffff) as u32);
            self.count -= 1;
        }
    }

    /// Keys of the connections for which this holds.
    pub(super) fn keys(&self, which: impl Fn(&Connection) -> bool) -> Vec<u64> {
        let places = (0u32..).zip(&self.places);
        places
            .filter(|(_, place)| place.connection.as_deref().is_some_and(&which))
            .map(|(index, place)| key(place.generation, index))
            .collect()
    }
}

fn key(generation: u32, index: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn index(key: u64) -> usize {
    (key & 0xffff_ffff) as usize
}
