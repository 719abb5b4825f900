//! The board's readers: a file of any bytes, or the board of a busy milter with words overwritten. They end, in bounded time, with an error
//! or with numbers; sums over slots stay sums, no number is wrapped around, and both readers say the same.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use bytemuck::Zeroable;
use scoreboard::records::{ChildRecord, Death, GlobalRecord, MasterRecord, put_text};
use scoreboard::{
    Board, ChildPage, Event, MapReader, MilterState, Phase, Reader, Second, Slot, SlotState,
    Snapshot, Spec,
};

/// Slots of it; half of them were used.
const SLOTS: u32 = 8;

/// A board as its writers make it.
fn real() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let spec = Spec {
            capacity: SLOTS,
            mode: 0o600,
            group: None,
            previous_instance: [0, 0],
        };
        let mut board = Board::create(dir.path(), "fuzz.scoreboard", &spec).expect("a board");
        let mut global = GlobalRecord::zeroed();
        global.state = MilterState::Running.word();
        global.slots_high_water = u64::from(SLOTS / 2);
        global.accepted = 100;
        for slot in 0..SLOTS / 2 {
            use_slot(&mut board, slot);
        }
        board.publish_global(&global);
        let mut death = Death::zeroed();
        death.pid = 7;
        put_text(&mut death.queue_id, b"4KILLED");
        board.append_death(death);
        board.append_event(Event::zeroed());
        board.append_second(Second::zeroed());
        fs::read(dir.path().join("fuzz.scoreboard")).expect("its bytes")
    })
}

/// A process in a slot that has two connections in progress, and a message in one of them.
fn use_slot(board: &mut Board, slot: u32) {
    board.adopt_child(slot, 1);
    let mut page = ChildPage::map(board.descriptor(), board.geometry(), slot, 1).expect("a page");
    let mut child = ChildRecord::zeroed();
    child.incarnation = 1;
    child.phase = Phase::Eom.word();
    child.counters.connections_completed = 20;
    child.counters.messages_started = 31;
    child.counters.verdicts[0] = 30;
    put_text(&mut child.queue_id, b"4XYZ123456");
    page.publish(&child);
    page.observe(Phase::Eom, 1_000_000);
    let mut master = MasterRecord::zeroed();
    master.state = SlotState::Live.word();
    master.incarnation = 1;
    master.pid = 8;
    master.processes = 3;
    master.dispatched = 22;
    master.dispatched_before = 3;
    board.publish_master(slot, &master);
}

fn sum(snapshot: &Snapshot, of: fn(&Slot) -> u64) -> u64 {
    let slots = snapshot.slots.iter();
    slots.fold(0, |sum, slot| sum.saturating_add(of(slot)))
}

fn holds(snapshot: &Snapshot) {
    assert_eq!(sum(snapshot, Slot::requests), snapshot.requests());
    assert_eq!(sum(snapshot, Slot::messages), snapshot.messages());
    assert_eq!(sum(snapshot, Slot::in_progress), snapshot.in_progress());
    assert_eq!(
        sum(snapshot, |slot| slot.acc().slot),
        snapshot.connections()
    );
    let _ = (
        snapshot.verdict(),
        snapshot.state(),
        snapshot.heartbeat_age(),
        snapshot.counters(),
        snapshot.queue(),
        snapshot.books(),
        snapshot.histograms(),
        snapshot.capacity_ns(),
        snapshot.late_answers(),
    );
    for slot in &snapshot.slots {
        let acc = slot.acc();
        assert!(slot.requests() <= acc.process && acc.process <= acc.slot);
        let _ = (slot.books(), slot.state(), snapshot.deadline_left(slot));
    }
    for death in &snapshot.deaths {
        let shown = scoreboard::shown(&death.queue_id);
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}

fn look(path: &Path) {
    let Ok(reader) = Reader::open(path) else {
        return;
    };
    let map = MapReader::open(path).expect("what can be read can be mapped");
    let _ = (reader.schema(), reader.history(), map.history());
    let (Ok(snapshot), mapped) = (reader.detailed(), map.detailed()) else {
        return;
    };
    holds(&snapshot);
    holds(&mapped);
    let what = |of: &Snapshot| {
        (
            of.requests(),
            of.connections(),
            of.counters(),
            of.slots.len(),
        )
    };
    assert_eq!(what(&snapshot), what(&mapped), "nobody writes");
}

/// The target. First byte 0: the rest is the file. Otherwise the rest is a list of changes to a real board, of 11 bytes: where (3), what (8).
pub fn board_reader(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    let write = |bytes: &[u8], at: u64| {
        file.as_file()
            .write_all_at(bytes, at)
            .expect("a file can be written");
    };
    if *kind == 0 {
        write(rest, 0);
    } else {
        let board = real();
        write(board, 0);
        for change in rest.chunks_exact(11).take(64) {
            let word = u64::from_be_bytes([0, 0, 0, 0, 0, change[0], change[1], change[2]]);
            let at = (word * 8) % (board.len() as u64 - 7);
            write(&change[3..], at);
        }
    }
    look(file.path());
}
