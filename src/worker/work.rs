//! The work in hand as the board shows it: phase, since when, queue id, and a few words for people.
#![forbid(unsafe_code)]

use scoreboard::records::{self, ChildRecord, Phase};

use crate::policy::{Facts, Recipient};

/// The work in hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    phase: Phase,
    since_ns: u64,
    queue_id: [u64; 9],
    doing: [u64; 17],
}

impl Work {
    /// Nothing is in hand: no MTA waits for an answer.
    pub(super) fn idle(now_ns: u64) -> Work {
        Work {
            phase: Phase::Idle,
            since_ns: now_ns,
            queue_id: [0; 9],
            doing: [0; 17],
        }
    }

    /// Nothing is in hand, in the middle of a message.
    pub(super) fn between_packets(facts: &Facts, now_ns: u64) -> Work {
        let mut work = Work::idle(now_ns);
        records::put_text(&mut work.queue_id, facts.queue_id().unwrap_or(b""));
        work
    }

    /// A session's callback, since when its MTA waits. `redact` leaves out whatever names somebody.
    pub(super) fn of(
        facts: &Facts,
        candidate: Option<&Recipient>,
        phase: Phase,
        since_ns: u64,
        redact: bool,
    ) -> Work {
        let mut work = Work {
            phase,
            since_ns,
            ..Work::idle(since_ns)
        };
        records::put_text(&mut work.queue_id, facts.queue_id().unwrap_or(b""));
        let mut text = Text::default();
        if !redact {
            describe(facts, candidate, &mut text);
        }
        records::put_text(&mut work.doing, text.bytes());
        work
    }

    /// Is an answer owed?
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Writes itself into a record.
    pub(super) fn show(&self, record: &mut ChildRecord) {
        record.phase = self.phase.word();
        record.phase_since_ns = self.since_ns;
        record.queue_id = self.queue_id;
        record.doing = self.doing;
    }
}

/// `client.example [192.0.2.1] from a@example.org to b@example.net +2`, as far as the policy collects it; the recipient is the one that
/// is being asked about, else the last.
fn describe(facts: &Facts, candidate: Option<&Recipient>, text: &mut Text) {
    if let Some(client) = &facts.client {
        text.push(&client.host);
        if let Some(address) = &client.address
            && client.host.first() != Some(&b'[')
        {
            text.push(b" [");
            text.push(address);
            text.push(b"]");
        }
    }
    let message = facts.message.as_ref();
    if let Some(sender) = message.and_then(|message| message.sender.as_deref()) {
        text.push(b" from ");
        text.push(if sender.is_empty() { b"<>" } else { sender });
    }
    let taken = message.and_then(|message| message.recipients.as_deref());
    let taken = taken.unwrap_or_default();
    let (named, others) = match (candidate, taken.split_last()) {
        (Some(candidate), _) => (candidate, taken.len()),
        (None, Some((last, earlier))) => (last, earlier.len()),
        (None, None) => return,
    };
    text.push(b" to ");
    text.push(named.address());
    if others > 0 {
        text.push(b" +");
        text.push(others.to_string().as_bytes());
    }
}

/// Bytes for the board: cut to its room, control characters replaced, nothing allocated.
struct Text {
    bytes: [u8; 128],
    length: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text {
            bytes: [0; 128],
            length: 0,
        }
    }
}

impl Text {
    fn push(&mut self, more: &[u8]) {
        let room = &mut self.bytes[self.length..];
        // The first word of a text needs no space before it.
        let more = match (self.length, more) {
            (0, [b' ', rest @ ..]) => rest,
            (_, more) => more,
        };
        for (to, byte) in room.iter_mut().zip(more) {
            *to = if byte.is_ascii_control() { b'?' } else { *byte };
        }
        self.length += more.len().min(room.len());
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_its_room_and_moves_no_cursor() {
        let mut text = Text::default();
        text.push(b" from ");
        text.push(b"a\x1b[2J");
        assert_eq!(text.bytes(), b"from a?[2J");
        text.push(&[b'x'; 300]);
        text.push(b"more");
        assert_eq!(text.bytes().len(), 128);
    }
}
