//! Records and directories for the tests of the board.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod player;
pub(crate) mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytemuck::Zeroable;
use scoreboard::{
    BoardVerdict, ChildRecord, GlobalRecord, MasterRecord, MilterState, SlotState, Snapshot, Spec,
};

/// A directory on tmpfs if there is one.
pub(crate) fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A small board.
pub(crate) fn spec(capacity: u32) -> Spec {
    Spec {
        capacity,
        mode: 0o640,
        group: None,
        previous_instance: [3, 4],
    }
}

/// A milter that runs.
pub(crate) fn global() -> GlobalRecord {
    GlobalRecord {
        state: MilterState::Running.word(),
        ..GlobalRecord::zeroed()
    }
}

/// A slot with a process.
pub(crate) fn live(incarnation: u64, pid: u64) -> MasterRecord {
    MasterRecord {
        state: SlotState::Live.word(),
        incarnation,
        pid,
        ..MasterRecord::zeroed()
    }
}

/// A child that has not counted anything.
pub(crate) fn empty() -> ChildRecord {
    ChildRecord::zeroed()
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    /// A seed other than 0.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A file of this crate.
pub(crate) fn crate_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares what was made with the file that is committed; with UPDATE_FORMAT in the environment it writes that file instead.
#[track_caller]
pub(crate) fn same_as_committed(path: &Path, made: &str) {
    if std::env::var_os("UPDATE_FORMAT").is_some() {
        fs::write(path, made).unwrap();
        return;
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    let differs = committed
        .lines()
        .zip(made.lines())
        .position(|(old, new)| old != new)
        .unwrap_or_else(|| committed.lines().count().min(made.lines().count()));
    assert!(
        committed == made,
        "{} is out of date from line {} on; if the change is meant, run: UPDATE_FORMAT=1 cargo test -p scoreboard",
        path.display(),
        differs + 1
    );
}

/// Compiles a C program as strictly as its readers might.
pub(crate) fn compile(source: &Path, program: &Path) -> Output {
    Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-o"])
        .arg(program)
        .arg(source)
        .output()
        .unwrap()
}

/// A reader that is not in Rust: the Python example, or the C example compiled.
pub(crate) struct Foreign {
    command: Vec<PathBuf>,
    _dir: Option<tempfile::TempDir>,
}

impl Foreign {
    /// `examples/read_board.py`.
    pub(crate) fn python() -> Foreign {
        Foreign::script("examples/read_board.py")
    }

    /// `examples/exporter.py`.
    pub(crate) fn exporter() -> Foreign {
        Foreign::script("examples/exporter.py")
    }

    fn script(name: &str) -> Foreign {
        Foreign {
            command: vec![PathBuf::from("python3"), crate_file(name)],
            _dir: None,
        }
    }

    /// `examples/read_board.c`.
    pub(crate) fn c() -> Foreign {
        let dir = dir();
        let program = dir.path().join("read_board");
        let told = compile(&crate_file("examples/read_board.c"), &program);
        assert!(told.status.success(), "{told:?}");
        Foreign {
            command: vec![program],
            _dir: Some(dir),
        }
    }

    /// Runs it on a board.
    pub(crate) fn run(&self, board: &Path) -> Output {
        Command::new(&self.command[0])
            .args(&self.command[1..])
            .arg(board)
            .output()
            .unwrap()
    }

    /// What it prints of a board that it can read.
    #[track_caller]
    pub(crate) fn prints(&self, board: &Path) -> String {
        let told = self.run(board);
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).unwrap()
    }
}

/// What `read_board.py` and `read_board.c` print, from the Rust reader's snapshot.
pub(crate) fn as_examples_print(snapshot: &Snapshot) -> String {
    let slots: Vec<String> = snapshot
        .slots
        .iter()
        .map(|slot| {
            let acc = slot.acc();
            format!(
                "{{\"slot\": {}, \"pid\": {}, \"acc\": [{}, {}, {}], \"requests\": {}, \"messages\": {}}}",
                slot.index,
                slot.master.pid,
                acc.process,
                acc.slot,
                acc.processes,
                slot.requests(),
                slot.messages()
            )
        })
        .collect();
    format!(
        "{{\"state\": {}, \"alive\": {}, \"pid\": {}, \"requests\": {}, \"messages\": {}, \"slots\": [{}]}}\n",
        snapshot.global.state,
        matches!(snapshot.verdict(), BoardVerdict::Alive { .. }),
        snapshot.header.master_pid,
        snapshot.requests(),
        snapshot.messages(),
        slots.join(", ")
    )
}
