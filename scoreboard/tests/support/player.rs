//! Processes of their own that play the master of a board, or a child: they are ignored tests of the same program, and end with it.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytemuck::Pod;
use scoreboard::{Board, ChildPage, ChildRecord, Death, GlobalRecord, MasterRecord, SlotState};

use super::{dir, spec};

/// Slots that every board of a player has room for.
pub(crate) const CAPACITY: u32 = 8;

/// A record whose words are all `n`.
pub(crate) fn filled<T: Pod>(n: u64) -> T {
    let mut record: T = bytemuck::Zeroable::zeroed();
    bytemuck::cast_slice_mut::<T, u64>(std::slice::from_mut(&mut record)).fill(n);
    record
}

/// A child's record whose words all follow from `n`, but for the one that makes it count.
pub(crate) fn child(n: u64) -> ChildRecord {
    ChildRecord {
        incarnation: 1,
        ..filled(n)
    }
}

/// The same of the master's.
pub(crate) fn master(n: u64) -> MasterRecord {
    MasterRecord {
        state: SlotState::Live.word(),
        incarnation: 1,
        ..filled(n)
    }
}

/// The same of the global record, with this many slots in use.
pub(crate) fn whole(n: u64, slots: u64) -> GlobalRecord {
    GlobalRecord {
        slots_high_water: slots,
        ..filled(n)
    }
}

/// The same of a death.
pub(crate) fn death(n: u64) -> Death {
    filled(n)
}

/// Another process that plays a master, or a child of a board that is there.
pub(crate) struct Player(Child);

impl Player {
    /// Starts the ignored test `role`, and waits until it is ready.
    pub(crate) fn start(role: &str, path: &Path) -> Player {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                role,
                "--nocapture",
                "--test-threads=1",
            ])
            .env("SCOREBOARD_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let ready = out
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("player ready"));
        assert!(ready, "{role} did not start");
        Player(child)
    }

    /// Stops it wherever it is, and waits until it stands.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
        let deadline = Instant::now() + Duration::from_secs(20);
        let stands = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        while !stands() {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::yield_now();
        }
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status();
        assert!(told.unwrap().success());
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Over already, unless a test failed in between.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In a player: the board's path.
pub(crate) fn path() -> PathBuf {
    std::env::var_os("SCOREBOARD_PATH").unwrap().into()
}

/// In a master: a new board at that path.
pub(crate) fn board() -> Board {
    let path = path();
    let name = path.file_name().unwrap().to_str().unwrap();
    Board::create(path.parent().unwrap(), name, &spec(CAPACITY)).unwrap()
}

/// In a child: the page of a slot, as the master has made it ready for incarnation 1.
pub(crate) fn page(slot: u32) -> ChildPage {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path())
        .unwrap();
    // Boards of one capacity have one geometry; a real child inherits it.
    let twin = dir();
    let geometry = Board::create(twin.path(), "twin.scoreboard", &spec(CAPACITY))
        .unwrap()
        .geometry();
    ChildPage::map(std::os::fd::AsFd::as_fd(&file), geometry, slot, 1).unwrap()
}

/// In a player: says that it is ready; ends with its parent, whose end of the pipe closes then.
pub(crate) fn ready() {
    println!("player ready");
    std::thread::spawn(|| {
        let _ = std::io::stdin().lines().count();
        std::process::exit(3);
    });
}
