//! Boards that no milter wrote: made by the test's own process, which holds their lock, or put there as bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bytemuck::Zeroable;
use scoreboard::{
    Board, ChildPage, ChildRecord, GlobalRecord, MasterRecord, MilterState, SlotState, Spec,
    liveness, put_text,
};

use super::milter::Milter;

/// Byte of the header's version: minor, then major.
pub const VERSION: usize = 8;
/// Byte of the header's byte order mark.
pub const ENDIAN: usize = 16;
/// Byte of the header's boot id.
pub const BOOT_ID: usize = 136;

/// Records of a milter that runs with one busy child.
pub struct Records {
    pub global: GlobalRecord,
    pub master: MasterRecord,
    pub child: ChildRecord,
}

impl Records {
    /// Its heartbeat is now.
    pub fn running() -> Records {
        let now = liveness::boot_time_ns();
        let mut global = GlobalRecord::zeroed();
        global.state = MilterState::Running.word();
        global.generation = 1;
        global.heartbeat_ns = now;
        global.slots_high_water = 1;
        global.slots_in_use = 1;
        global.slots_max = 4;
        global.children_max = 2;
        global.connections_max = 4;
        global.accepted = 3;
        put_text(&mut global.port, b"inet:1@127.0.0.1");
        put_text(&mut global.version, b"9.9.9");
        let mut master = MasterRecord::zeroed();
        master.state = SlotState::Live.word();
        master.incarnation = 1;
        master.pid = u64::from(std::process::id());
        master.processes = 1;
        master.dispatched = 3;
        let mut child = ChildRecord::zeroed();
        child.incarnation = 1;
        child.counters.connections_completed = 1;
        child.phase = 7;
        child.phase_since_ns = now;
        Records {
            global,
            master,
            child,
        }
    }

    /// Makes it the board of a milter; its writer lives as long as what is returned.
    pub fn publish(&self, milter: &Milter) -> Board {
        let dir = run_dir(milter);
        let spec = Spec {
            capacity: 4,
            mode: 0o640,
            group: None,
            previous_instance: [0; 2],
        };
        let mut board = Board::create(&dir, "policy.scoreboard", &spec).unwrap();
        board.adopt_child(0, 1);
        let mut page = ChildPage::map(board.descriptor(), board.geometry(), 0, 1).unwrap();
        page.publish(&self.child);
        board.publish_master(0, &self.master);
        board.publish_global(&self.global);
        board
    }
}

/// The bytes of a board without a master.
pub fn dead_board() -> Vec<u8> {
    let milter = Milter::new("return {}");
    drop(Records::running().publish(&milter));
    fs::read(board_file(&milter)).unwrap()
}

/// Where a milter's board is.
pub fn board_file(milter: &Milter) -> PathBuf {
    milter.run_dir().join("policy.scoreboard")
}

/// Puts these bytes where a milter's board is.
pub fn plant(milter: &Milter, bytes: &[u8]) {
    run_dir(milter);
    fs::write(board_file(milter), bytes).unwrap();
}

/// A milter's run directory, made if it is missing.
pub fn run_dir(milter: &Milter) -> PathBuf {
    let dir = milter.run_dir();
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}
