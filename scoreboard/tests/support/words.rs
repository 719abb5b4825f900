//! Boards as lists of words: `size N`, then a line `byte_offset hexword` for each word that is not 0. And the board with patterns in
//! every word that such files hold.
#![allow(dead_code, clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use scoreboard::layout::Header;
use scoreboard::{
    Board, ChildPage, ChildRecord, Death, Event, GlobalRecord, MasterRecord, MilterState, Phase,
    PhaseHistograms, Second, SlotState, Spec, put_text,
};

/// The bytes that a list of words tells.
pub(crate) fn from_words(text: &str) -> Vec<u8> {
    let mut lines = text.lines();
    let size = lines.next().unwrap().strip_prefix("size ").unwrap();
    let mut bytes = vec![0; size.parse().unwrap()];
    for line in lines {
        let (offset, word) = line.split_once(' ').unwrap();
        put(
            &mut bytes,
            offset.parse::<usize>().unwrap() / 8,
            u64::from_str_radix(word, 16).unwrap(),
        );
    }
    bytes
}

/// The list of words of these bytes.
pub(crate) fn to_words(bytes: &[u8]) -> String {
    let mut text = format!("size {}\n", bytes.len());
    for (index, chunk) in bytes.chunks(8).enumerate() {
        let word = u64::from_ne_bytes(chunk.try_into().unwrap());
        if word != 0 {
            let _ = writeln!(text, "{} {word:x}", index * 8);
        }
    }
    text
}

/// A word of a board.
pub(crate) fn get(bytes: &[u8], word: usize) -> u64 {
    u64::from_ne_bytes(bytes[word * 8..word * 8 + 8].try_into().unwrap())
}

/// Sets a word of a board.
pub(crate) fn put(bytes: &mut [u8], word: usize, value: u64) {
    bytes[word * 8..word * 8 + 8].copy_from_slice(&value.to_ne_bytes());
}

/// The header of a board.
pub(crate) fn header(bytes: &[u8]) -> Header {
    bytemuck::pod_read_unaligned(&bytes[..512])
}

/// A record whose word i is `first + i`, up to its word `end`.
pub(crate) fn pattern<T: Pod>(first: u64, end: usize) -> T {
    let mut record = T::zeroed();
    let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut record));
    for (word, value) in words[..end].iter_mut().zip(first..) {
        *word = value;
    }
    record
}

/// Where the reserved words of the three records begin in this version.
const GLOBAL_END: usize = std::mem::offset_of!(GlobalRecord, reserved) / 8;
const MASTER_END: usize = std::mem::offset_of!(MasterRecord, reserved) / 8;
const CHILD_END: usize = std::mem::offset_of!(ChildRecord, reserved) / 8;

/// The global record of the pattern, with the words that `end` leaves.
pub(crate) fn global(end: usize) -> GlobalRecord {
    let mut record: GlobalRecord = pattern(1000, end);
    record.state = MilterState::Running.word();
    record.slots_high_water = 2;
    put_text(&mut record.port, b"inet:3366@127.0.0.1");
    put_text(&mut record.version, b"0.1.0");
    put_text(&mut record.trouble, b"the last trouble");
    record
}

/// The master's record of a slot of the pattern: a process in slot 0, none in slot 1.
pub(crate) fn master(slot: u32, end: usize) -> MasterRecord {
    let mut record: MasterRecord = pattern(2000, end);
    let (state, incarnation) = if slot == 0 {
        (SlotState::Live, 7)
    } else {
        (SlotState::Empty, 9)
    };
    record.state = state.word();
    record.incarnation = incarnation;
    record
}

/// The child's record of slot 0 of the pattern.
pub(crate) fn child(end: usize) -> ChildRecord {
    let mut record: ChildRecord = pattern(3000, end);
    record.incarnation = 7;
    put_text(&mut record.queue_id, b"4ABCDEF");
    put_text(&mut record.doing, b"client.example");
    record
}

/// The one death of the pattern.
pub(crate) fn death() -> Death {
    let mut death: Death = pattern(4000, 16);
    death.number = 1;
    put_text(&mut death.queue_id, b"4DEAD");
    death
}

/// Second `number` of the pattern.
pub(crate) fn second(number: u64) -> Second {
    let mut second: Second = pattern(5000 + 100 * number, 16);
    second.number = number;
    second
}

/// Event `number` of the pattern.
pub(crate) fn event(number: u64) -> Event {
    let mut event: Event = pattern(6000 + 100 * number, 6);
    event.number = number;
    event
}

/// What earlier processes of slot 0 observed, in a copy: copy 0 counts, for word 76 of the master's record is even.
pub(crate) fn earlier(copy: u64) -> PhaseHistograms {
    let mut histograms = PhaseHistograms::default();
    for (word, value) in histograms.0.as_flattened_mut().iter_mut().zip(7000..) {
        *word = value + 1000 * copy;
    }
    histograms
}

/// What the process in slot 0 observed: phase, duration.
pub(crate) const OBSERVED: [(Phase, u64); 3] = [
    (Phase::Connect, 16_000),
    (Phase::Rcpt, 1_000_000),
    (Phase::Eom, u64::MAX),
];

/// The bytes of a board that today's writer makes of the pattern; words that differ from run to run (ids, pids, clocks) hold their index.
pub(crate) fn written_today(dir: &Path) -> Vec<u8> {
    let spec = Spec {
        capacity: 2,
        mode: 0o640,
        group: None,
        previous_instance: [3, 4],
    };
    let mut board = Board::create(dir, "pattern.scoreboard", &spec).unwrap();
    board.publish_global(&GlobalRecord::zeroed());
    board.publish_global(&global(GLOBAL_END));
    board.adopt_child(0, 7);
    let mut page = ChildPage::map(board.descriptor(), board.geometry(), 0, 7).unwrap();
    page.publish(&child(CHILD_END));
    for (phase, ns) in OBSERVED {
        page.observe(phase, ns);
    }
    for copy in [0, 1] {
        board.write_master_histograms(0, copy, &earlier(copy));
    }
    for slot in [0, 1] {
        board.publish_master(slot, &master(slot, MASTER_END));
    }
    board.append_death(death());
    for number in 1..=2 {
        board.append_second(second(number));
        board.append_event(event(number));
    }
    let mut bytes = fs::read(dir.join("pattern.scoreboard")).unwrap();
    for word in VARYING {
        put(&mut bytes, word, word as u64);
    }
    bytes
}

/// Instance, boot, pid and start of the master, pid namespace, clocks at the creation.
const VARYING: std::ops::RangeInclusive<usize> = 15..=23;
