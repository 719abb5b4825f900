//! `pmx-milter status` as a process, against the cheapest process there is.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use nix::sys::resource::{UsageWho, getrusage};
use scoreboard::records::{ChildRecord, MasterRecord, MilterState, Phase, SlotState, put_text};
use scoreboard::{Board, ChildPage, GlobalRecord, Spec};

use super::median;

/// Processes of each kind a round, one after the other, so that both meet the same machine.
const PROCESSES: u32 = 100;
const ROUNDS: usize = 7;

/// A board with so many busy slots, as a milter would have it.
pub(super) fn busy_board(dir: &Path, slots: u32) -> Board {
    let spec = Spec {
        capacity: 1024,
        mode: 0o640,
        group: None,
        previous_instance: [0; 2],
    };
    let mut board = Board::create(dir, "policy.scoreboard", &spec).unwrap();
    let mut global = GlobalRecord::zeroed();
    global.state = MilterState::Running.word();
    global.slots_high_water = u64::from(slots);
    global.slots_max = 1024;
    global.heartbeat_ns = scoreboard::liveness::boot_time_ns() + 3_600_000_000_000;
    put_text(&mut global.port, b"inet:3366@127.0.0.1");
    for slot in 0..slots {
        board.adopt_child(slot, 1);
        let mut page = ChildPage::map(board.descriptor(), board.geometry(), slot, 1).unwrap();
        let mut child = ChildRecord::zeroed();
        child.incarnation = 1;
        child.counters.verdicts[0] = 1234;
        child.counters.messages_started = 1235;
        child.phase = Phase::Eom.word();
        put_text(&mut child.queue_id, b"4XYZ123456");
        page.publish(&child);
        let mut master = MasterRecord::zeroed();
        master.state = SlotState::Live.word();
        master.incarnation = 1;
        master.pid = u64::from(std::process::id());
        master.dispatched = 500;
        master.processes = 3;
        master.vsz_bytes = 44 << 20;
        board.publish_master(slot, &master);
    }
    board.publish_global(&global);
    board
}

fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(value.tv_sec() * 1_000_000 + value.tv_usec()).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Microseconds of CPU and of wall time for one process.
fn cost(command: &[&str]) -> (f64, f64) {
    let (cpu, wall) = (children_cpu(), Instant::now());
    for _ in 0..PROCESSES {
        let status = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{command:?}");
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(PROCESSES);
    (each(children_cpu() - cpu), each(wall.elapsed()))
}

pub(super) fn run() {
    println!("\n| a whole process | CPU us | of /bin/true | wall us | of /bin/true |");
    println!("|---|---|---|---|---|");
    for slots in [256_u32, 1000] {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let _board = busy_board(dir.path(), slots);
        let conf = dir.path().join("pmx.conf");
        fs::write(dir.path().join("policy.lua"), "return {}").unwrap();
        fs::write(
            &conf,
            format!(
                "run_dir = \"{}\"\nuser = \"nobody\"\n[milter.policy]\nport = \"inet:3366@127.0.0.1\"\npolicy = \"policy.lua\"\n",
                dir.path().display()
            ),
        )
        .unwrap();
        // As installed, in one piece: a linker writes in bits, and the kernel keeps the file in pages as small as these.
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pmx-milter");
        fs::copy(env!("CARGO_BIN_EXE_pmx-milter"), &program).unwrap();
        let program = program.to_str().unwrap();
        let conf = conf.to_str().unwrap();
        let json = ["--format", "json"];
        let text: Vec<&str> = vec![program, "-c", conf, "status", "policy"];
        let json: Vec<&str> = text.iter().copied().chain(json).collect();
        let kinds = [
            ("/bin/true", vec!["/bin/true"]),
            ("status", text),
            ("status --format json", json),
        ];
        let mut costs = vec![(Vec::new(), Vec::new()); kinds.len()];
        for _ in 0..ROUNDS {
            for ((_, command), (cpus, walls)) in kinds.iter().zip(&mut costs) {
                let (cpu, wall) = cost(command);
                cpus.push(cpu);
                walls.push(wall);
            }
        }
        let costs: Vec<(f64, f64)> = costs
            .into_iter()
            .map(|(cpus, walls)| (median(cpus), median(walls)))
            .collect();
        for ((name, _), (cpu, wall)) in kinds.iter().zip(&costs) {
            println!(
                "| {name}, {slots} slots | {cpu:.0} | **{:.2}** | {wall:.0} | {:.2} |",
                cpu / costs[0].0,
                wall / costs[0].1
            );
        }
    }
}
