//! The board's readers: a file of any bytes, or a real board with words overwritten. They end, in bounded time, with an error or with
//! numbers; sums over slots stay sums.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use scoreboard::{Board, Spec};

/// A board as its writer makes it.
fn real() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let spec = Spec {
            capacity: 8,
            mode: 0o600,
            group: None,
            previous_instance: [0, 0],
        };
        let _board = Board::create(dir.path(), "fuzz.scoreboard", &spec).expect("a board");
        fs::read(dir.path().join("fuzz.scoreboard")).expect("its bytes")
    })
}

fn look(path: &Path) {
    let Ok(snapshot) = scoreboard::read(path) else {
        return;
    };
    let requests = snapshot
        .slots
        .iter()
        .fold(0_u64, |sum, slot| sum.saturating_add(slot.requests()));
    assert_eq!(requests, snapshot.requests());
    let _ = (
        snapshot.verdict(),
        snapshot.state(),
        snapshot.heartbeat_age(),
        snapshot.messages(),
        snapshot.in_progress(),
        snapshot.connections(),
        snapshot.counters(),
        snapshot.queue(),
        snapshot.books(),
    );
    for slot in &snapshot.slots {
        let _ = (slot.acc(), slot.books(), slot.state(), slot.in_progress());
    }
    for death in &snapshot.deaths {
        let _ = scoreboard::shown(&death.queue_id);
    }
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
