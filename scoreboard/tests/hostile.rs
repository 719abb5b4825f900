//! Whatever stands in the file, readers return: an error or a snapshot, in bounded time, and never a panic.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use scoreboard::{
    Board, CreateError, GlobalRecord, History, MapReader, MasterRecord, Phase, ReadError, Reader,
    SlotState, Snapshot, histogram, read, shown,
};
use support::{Random, dir, global, live, spec};

/// Everything that a program would ask of a snapshot.
fn use_all(snapshot: &Snapshot) {
    let rows: u64 = snapshot
        .slots
        .iter()
        .fold(0, |sum, slot| sum.saturating_add(slot.requests()));
    assert_eq!(rows, snapshot.requests());
    let _ = (snapshot.verdict(), snapshot.books().is_balanced());
    let _ = (snapshot.messages(), snapshot.counters(), snapshot.queue());
    let _ = (
        snapshot.heartbeat_age(),
        snapshot.books().accepted.missing(),
    );
    let _ = (snapshot.lost_connections(), snapshot.lost_messages());
    let _ = (snapshot.in_progress(), snapshot.retiring());
    let _ = (snapshot.header.instance_text(), snapshot.header.boot_text());
    for slot in &snapshot.slots {
        let _ = (slot.acc(), slot.state(), slot.books());
        if let Some(child) = &slot.child {
            let text = shown(&child.doing);
            assert!(!text.contains(char::is_control));
            let _ = snapshot.deadline_left(slot);
            let _ = snapshot.age(child.phase_since_ns);
        }
    }
    for death in &snapshot.deaths {
        let _ = (
            shown(&death.queue_id),
            scoreboard::decode_end(death.end),
            snapshot.age(death.at_ns),
        );
    }
    assert!(snapshot.deaths.len() <= 31);
    let _ = (
        snapshot.busy(),
        snapshot.capacity_ns(),
        snapshot.late_answers(),
    );
    if let Some(sum) = snapshot.histograms() {
        for phase in Phase::ALL {
            let _ = histogram::quantile_ns(sum.of(*phase), histogram::phase_bounds_ns(), 0.99);
        }
    }
}

/// The same of a history: whole entries, each once, the latest first.
fn use_history(history: &History) {
    let seconds = history.seconds.iter().map(|second| second.number);
    let events = history.events.iter().map(|event| event.number);
    assert!(seconds.is_sorted_by(|one, next| one > next));
    assert!(events.is_sorted_by(|one, next| one > next));
}

/// A sound board's bytes, with all slots in use.
fn bytes(dir: &Path) -> Vec<u8> {
    let mut board = Board::create(dir, "m.scoreboard", &spec(8)).unwrap();
    board.publish_global(&GlobalRecord {
        slots_high_water: 8,
        ..global()
    });
    for slot in 0..8 {
        board.adopt_child(slot, 1);
        board.publish_master(slot, &live(1, 100));
    }
    fs::read(dir.join("m.scoreboard")).unwrap()
}

fn put(bytes: &mut [u8], word: usize, value: u64) {
    bytes[word * 8..word * 8 + 8].copy_from_slice(&value.to_ne_bytes());
}

#[test]
fn damaged_headers_are_errors_that_say_what_is_wrong() {
    let dir = dir();
    let sound = bytes(dir.path());
    let path = dir.path().join("x.scoreboard");
    let size = sound.len() as u64;
    type Is = fn(&ReadError) -> bool;
    let cases: [(&str, usize, u64, Is); 11] = [
        ("other first bytes", 0, 7, |e| {
            matches!(e, ReadError::NotABoard(..))
        }),
        (
            "line ends mangled",
            0,
            u64::from_ne_bytes(*b"\x89PMXSB\n\n"),
            |e| matches!(e, ReadError::NotABoard(..)),
        ),
        ("a later major version", 1, 2 << 32, |e| {
            matches!(e, ReadError::Version(_, 2, 0))
        }),
        ("no version", 1, 5, |e| {
            matches!(e, ReadError::Version(_, 0, 5))
        }),
        ("the other byte order", 2, 0x0807_0605_0403_0201, |e| {
            matches!(e, ReadError::Endian(_))
        }),
        ("no byte order", 2, 0, |e| {
            matches!(e, ReadError::Geometry(..))
        }),
        ("another size", 4, size + 8, |e| {
            matches!(e, ReadError::Size(..))
        }),
        ("too many slots", 12, 1 << 40, |e| {
            matches!(e, ReadError::Geometry(..))
        }),
        ("pages beyond the end", 9, size, |e| {
            matches!(e, ReadError::Geometry(..))
        }),
        ("schema beyond the end", 14, u64::MAX, |e| {
            matches!(e, ReadError::Geometry(..))
        }),
        ("not ready", 26, 0, |e| matches!(e, ReadError::NotReady(_))),
    ];
    for (what, word, value, is) in cases {
        let mut bytes = sound.clone();
        put(&mut bytes, word, value);
        fs::write(&path, &bytes).unwrap();
        let error = read(&path).unwrap_err();
        assert!(is(&error), "{what}: {error:?}");
        assert!(error.to_string().contains("x.scoreboard"), "{error}");
        assert!(MapReader::open(&path).is_err(), "{what}");
    }
    // A later minor version is welcome.
    let mut bytes = sound;
    put(&mut bytes, 1, (1 << 32) | 9);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(read(&path).unwrap().header.minor(), 9);
}

#[test]
fn a_file_of_any_length_is_an_error() {
    let dir = dir();
    let sound = bytes(dir.path());
    let path = dir.path().join("x.scoreboard");
    for length in [0, 1, 7, 8, 100, 511, 512, 513, 4096, 8192, sound.len() - 1] {
        fs::write(&path, &sound[..length]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            matches!(error, ReadError::NotABoard(..) | ReadError::Size(..)),
            "{length}: {error:?}"
        );
    }
    assert!(matches!(read(dir.path()), Err(ReadError::NotABoard(..))));
    assert!(read(&dir.path().join("missing")).unwrap_err().is_missing());
}

#[test]
fn a_file_that_is_cut_short_under_an_open_reader_is_an_error() {
    let dir = dir();
    let sound = bytes(dir.path());
    let path = dir.path().join("x.scoreboard");
    fs::write(&path, &sound).unwrap();
    let reader = Reader::open(&path).unwrap();
    use_all(&reader.snapshot().unwrap());
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1000)
        .unwrap();
    assert!(matches!(reader.snapshot(), Err(ReadError::Read(..))));
    assert!(matches!(reader.schema(), Err(ReadError::Read(..))));
}

#[test]
fn random_bytes_behind_a_sound_header_never_harm_a_reader() {
    let dir = dir();
    let sound = bytes(dir.path());
    let path = dir.path().join("x.scoreboard");
    let mut random = Random::new(1);
    for round in 0..200 {
        let mut bytes = sound.clone();
        for chunk in bytes[512..].chunks_mut(8) {
            // Extremes and small numbers find more than noise does.
            let word = match random.next() % 4 {
                0 => u64::MAX - random.next() % 3,
                1 => random.next() % 9,
                2 => 0,
                _ => random.next(),
            };
            chunk.copy_from_slice(&word.to_ne_bytes()[..chunk.len()]);
        }
        if round % 2 == 0 {
            // All slots in use, and every child's record counts.
            put(&mut bytes, 64, 0);
            put(&mut bytes, 80 + 16, u64::MAX);
        }
        fs::write(&path, &bytes).unwrap();
        let reader = Reader::open(&path).unwrap();
        let snapshot = reader.detailed().unwrap();
        use_all(&snapshot);
        use_history(&reader.history().unwrap());
        let map = MapReader::open(&path).unwrap();
        use_all(&map.detailed());
        use_history(&map.history());
        if round % 2 == 0 {
            assert_eq!(snapshot.slots.len(), 8);
        }
    }
}

#[test]
fn random_damage_to_the_header_never_harms_a_reader() {
    let dir = dir();
    let sound = bytes(dir.path());
    let path = dir.path().join("x.scoreboard");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.write_all_at(&sound, 0).unwrap();
    let mut random = Random::new(2);
    for _ in 0..3000 {
        let mut header = sound[..512].to_vec();
        for _ in 0..=random.next() % 3 {
            // All that tells where something is, the areas of 1.1 included.
            let word = 3 + usize::try_from(random.next() % 34).unwrap();
            let old = u64::from_ne_bytes(header[word * 8..word * 8 + 8].try_into().unwrap());
            let new = match random.next() % 4 {
                0 => random.next(),
                1 => u64::MAX - random.next() % 5000,
                2 => old.wrapping_add(random.next() % 64).wrapping_sub(32),
                _ => old ^ (1 << (random.next() % 64)),
            };
            put(&mut header, word, new);
        }
        file.write_all_at(&header, 0).unwrap();
        if let Ok(reader) = Reader::open(&path) {
            use_all(&reader.detailed().unwrap());
            use_history(&reader.history().unwrap());
            let _ = reader.schema();
            let map = MapReader::open(&path).unwrap();
            use_all(&map.detailed());
            use_history(&map.history());
        }
    }
}

#[test]
fn a_child_that_scribbles_on_its_whole_page_hurts_nobody_else() {
    let dir = dir();
    let path = dir.path().join("m.scoreboard");
    let mut board = Board::create(dir.path(), "m.scoreboard", &spec(8)).unwrap();
    board.publish_global(&GlobalRecord {
        slots_high_water: 2,
        accepted: 7,
        ..global()
    });
    let record = MasterRecord {
        dispatched: 7,
        ..live(1, 100)
    };
    board.adopt_child(0, 1);
    board.publish_master(0, &record);
    let page = board.geometry().child_page(0).unwrap() as u64;
    let file = File::options().write(true).open(&path).unwrap();
    let mut random = Random::new(3);
    for _ in 0..100 {
        let mut bytes = vec![0; 4096];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_ne_bytes());
        }
        // It claims to be the process that counts.
        for at in [128, 2112] {
            bytes[at..at + 8].copy_from_slice(&1_u64.to_ne_bytes());
        }
        file.write_all_at(&bytes, page).unwrap();
        let snapshot = read(&path).unwrap();
        use_all(&snapshot);
        assert_eq!(snapshot.slots[0].acc().process, 7);
        assert!(snapshot.requests() <= 7);
        assert_eq!(snapshot.slots[1].state(), SlotState::Free);
        board.read_child(0);
        // The next process gets a clean record all the same.
        board.adopt_child(0, 2);
        assert_eq!(board.read_child(0).incarnation, 2);
        board.adopt_child(0, 1);
    }
}

/// Runs a test of this file in a process of its own.
fn rerun(name: &str, before: &[&str]) -> std::process::Output {
    let this = std::env::current_exe().unwrap();
    let (program, arguments) = before.split_first().unwrap();
    Command::new(program)
        .args(arguments)
        .arg(this)
        .args([
            "--ignored",
            "--exact",
            name,
            "--nocapture",
            "--test-threads=1",
        ])
        .output()
        .unwrap()
}

#[test]
fn a_full_tmpfs_is_an_error_message_and_no_signal() {
    let told = rerun(
        "on_a_small_tmpfs",
        &[
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o size=64k none /mnt && exec \"$0\" \"$@\"",
        ],
    );
    let said = String::from_utf8_lossy(&told.stdout);
    if !said.contains("running 1 test") {
        eprintln!("skipped: no private tmpfs here: {told:?}");
        return;
    }
    assert!(told.status.success(), "{told:?}");
}

#[test]
#[ignore = "run by a_full_tmpfs_is_an_error_message_and_no_signal"]
fn on_a_small_tmpfs() {
    let dir = Path::new("/mnt");
    let error = Board::create(dir, "m.scoreboard", &spec(1024)).unwrap_err();
    assert!(matches!(error, CreateError::NoSpace(..)), "{error:?}");
    assert!(error.to_string().contains("no room"), "{error}");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "nothing is left");
}
