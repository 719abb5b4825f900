//! A milter of the test's own: pmx.conf, policy and run directory in a directory under /tmp, a free port, the built program.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::command::{Outcome, Running, run, spawn};
use super::mta::{Address, Mta};
use super::ports::free_port;
use super::pty::Pty;
use super::{SOON, is_root, process, wait_until};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pmx-milter");

/// Takes every message and adds a header. MAIL is answered, so that a message is in progress once it was.
pub const ADDS_A_HEADER: &str = r#"
local policy = {}
function policy.mail(ctx, sender, args) end
function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end
return policy
"#;

/// A configuration with one milter, `policy`; stopped and removed when dropped.
pub struct Milter {
    dir: tempfile::TempDir,
    /// Its TCP port, also when it listens on a UNIX socket instead.
    pub port: u16,
    unix: bool,
    mark: String,
}

impl Milter {
    /// A milter with this policy and the defaults, not started.
    pub fn new(policy: &str) -> Milter {
        Milter::with(policy, "")
    }

    /// A milter with this policy and these lines in its table.
    pub fn with(policy: &str, settings: &str) -> Milter {
        Milter::inside("/tmp", false, policy, settings)
    }

    /// A milter that listens on a UNIX socket.
    pub fn on_unix_socket(policy: &str, settings: &str) -> Milter {
        // Sendmail takes no socket below a directory that everybody can write to, such as /tmp.
        let base = if is_root() { "/run" } else { "/tmp" };
        Milter::inside(base, true, policy, settings)
    }

    fn inside(base: &str, unix: bool, policy: &str, settings: &str) -> Milter {
        let dir = tempfile::Builder::new()
            .prefix("pmx-test-")
            .tempdir_in(base)
            .unwrap();
        // The user that runs policies must reach them.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mark = format!("PMX_TEST_DIR={}", dir.path().display());
        let milter = Milter {
            dir,
            port: free_port(),
            unix,
            mark,
        };
        milter.write_policy(policy);
        milter.configure(settings);
        milter
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// Replaces the policy.
    pub fn write_policy(&self, text: &str) {
        self.write("policy.lua", text);
    }

    /// Writes a file that everybody may read. At once: whoever reads it meanwhile finds all of the old one or all of the new one.
    pub fn write(&self, name: &str, text: &str) {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(&new, &path).unwrap();
    }

    /// The port as pmx.conf has it.
    pub fn port_setting(&self) -> String {
        if self.unix {
            format!("unix:{}", self.path("socket").display())
        } else {
            format!("inet:{}@127.0.0.1", self.port)
        }
    }

    /// Replaces pmx.conf: the milter `policy` with these lines in its table.
    pub fn configure(&self, settings: &str) {
        let text = format!(
            "[milter.policy]\nport = \"{}\"\npolicy = \"policy.lua\"\n{settings}\n",
            self.port_setting()
        );
        self.configure_milters(&text);
    }

    /// Replaces pmx.conf: these tables below the top-level lines.
    pub fn configure_milters(&self, tables: &str) {
        let user = if is_root() { "user = \"nobody\"\n" } else { "" };
        let text = format!(
            "run_dir = \"{}\"\n{user}log_to = \"file:{}\"\nlog_level = \"debug\"\n{tables}",
            self.run_dir().display(),
            self.path("log").display()
        );
        self.write("pmx.conf", &text);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(PROGRAM), arguments)
    }

    fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(self.path("pmx.conf"))
            .args(arguments)
            .env("PMX_TEST_DIR", self.dir.path())
            .env_remove("PMX_CONF")
            .env_remove("NOTIFY_SOCKET")
            .current_dir("/");
        command
    }

    /// The same in a terminal of its own.
    pub fn pmx_in_terminal(&self, arguments: &[&str], columns: u16, rows: u16) -> Pty {
        Pty::start(&self.command(arguments), columns, rows)
    }

    /// Runs `pmx-milter -c pmx.conf ARGUMENTS`.
    pub fn pmx(&self, arguments: &[&str]) -> Outcome {
        run(self.command(arguments), 2 * SOON)
    }

    /// The same by another file of the program.
    pub fn pmx_by(&self, program: &Path, arguments: &[&str]) -> Outcome {
        run(self.command_of(program, arguments), 2 * SOON)
    }

    /// The same under a hard limit of open files.
    pub fn pmx_with_descriptors(&self, limit: u64, arguments: &[&str]) -> Outcome {
        let plain = self.command(arguments);
        let mut limited = Command::new("prlimit");
        limited
            .arg(format!("--nofile={limit}:{limit}"))
            .arg(plain.get_program())
            .args(plain.get_args())
            .current_dir("/");
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        run(limited, 2 * SOON)
    }

    /// The same as another user, whose its directory becomes.
    pub fn pmx_as(&self, user: u32, arguments: &[&str]) -> Outcome {
        let own = |path: &Path| std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        own(self.dir.path());
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            own(&entry.unwrap().path());
        }
        let mut command = self.command(arguments);
        std::os::unix::process::CommandExt::uid(&mut command, user);
        std::os::unix::process::CommandExt::gid(&mut command, user);
        run(command, 2 * SOON)
    }

    /// The same without waiting.
    pub fn pmx_in_background(&self, arguments: &[&str]) -> Running {
        spawn(self.command(arguments))
    }

    /// Starts it; the test ends when that fails.
    #[track_caller]
    pub fn start(&self) {
        let outcome = self.pmx(&["start"]);
        assert_eq!(
            outcome.code,
            0,
            "start\n{}{}\n--- log\n{}",
            outcome.out,
            outcome.err,
            self.log()
        );
    }

    /// A milter that runs.
    #[track_caller]
    pub fn started(policy: &str, settings: &str) -> Milter {
        let milter = Milter::with(policy, settings);
        milter.start();
        milter
    }

    /// Stops it as `stop` does by default.
    #[track_caller]
    pub fn stop(&self) {
        self.pmx(&["stop"]).expect(0);
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits for a line of the log.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(SOON, &format!("{text:?} in the log"), || {
            self.log().contains(text).then_some(())
        });
    }

    /// `status`, as people see it.
    pub fn status(&self) -> Outcome {
        self.pmx(&["status"])
    }

    /// `status --format json`: the milter's object.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.json_if_any()
            .unwrap_or_else(|| panic!("status as JSON has no milter"))
    }

    /// The same; `None` when there is no milter in it.
    #[track_caller]
    pub fn json_if_any(&self) -> Option<Value> {
        let outcome = self.pmx(&["status", "--format", "json"]);
        let all: Value = serde_json::from_str(&outcome.out)
            .unwrap_or_else(|error| panic!("not JSON: {error}\n{}{}", outcome.out, outcome.err));
        assert_eq!(all["schema"], 1, "{}", outcome.out);
        all["milters"].get(0).cloned()
    }

    /// Waits until the JSON status fulfils this.
    #[track_caller]
    pub fn wait_json(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let end = std::time::Instant::now() + SOON;
        while std::time::Instant::now() < end {
            last = self.json();
            if holds(&last) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "{what}: not within {SOON:?}; the last status: {last:#}\n--- log\n{}",
            self.log()
        );
    }

    /// The master's pid.
    #[track_caller]
    pub fn master(&self) -> i32 {
        pid(&self.json()["pid"])
    }

    /// Pids of the children in slots now, by slot.
    #[track_caller]
    pub fn children(&self) -> Vec<i32> {
        pids(&self.json())
    }

    /// Where an MTA connects.
    pub fn address(&self) -> Address {
        if self.unix {
            Address::Unix(self.path("socket"))
        } else {
            Address::Tcp(SocketAddr::from(([127, 0, 0, 1], self.port)))
        }
    }

    /// A connection on which nothing was said.
    #[track_caller]
    pub fn open(&self) -> Mta {
        Mta::open(&self.address(), SOON)
            .unwrap_or_else(|error| panic!("cannot connect: {error}\n--- log\n{}", self.log()))
    }

    /// A session that stands before its first message.
    #[track_caller]
    pub fn session(&self) -> Mta {
        Mta::ready(&self.address(), SOON)
            .unwrap_or_else(|error| panic!("no session: {error}\n--- log\n{}", self.log()))
    }

    /// Everything that was started here and still runs, orphans too.
    pub fn processes(&self) -> Vec<i32> {
        let mut all = process::marked(&self.mark);
        // Masters keep others of their user out: tests that are not root's find them by their locks.
        let entries = fs::read_dir(self.run_dir()).into_iter().flatten().flatten();
        for entry in entries.filter(|it| it.path().extension().is_some_and(|it| it == "lock")) {
            all.extend(process::lock_holders(&entry.path()));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Names in the run directory, without locks: these stay, so that they can be trusted.
    pub fn left_behind(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.run_dir()) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        names.sort();
        names
    }
}

/// A pid in JSON.
#[track_caller]
pub fn pid(value: &Value) -> i32 {
    let number = value.as_i64().unwrap_or_else(|| panic!("no pid: {value}"));
    i32::try_from(number).unwrap()
}

/// A count in JSON.
#[track_caller]
pub fn count(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no count: {value}"))
}

/// Pids of the slots that have a process.
pub fn pids(milter: &Value) -> Vec<i32> {
    let slots = milter["slots"].as_array().cloned().unwrap_or_default();
    slots
        .iter()
        .filter(|slot| !slot["pid"].is_null())
        .map(|slot| pid(&slot["pid"]))
        .collect()
}

/// Sum of a member over the slots.
pub fn sum(milter: &Value, member: &str) -> u64 {
    let slots = milter["slots"].as_array().cloned().unwrap_or_default();
    slots.iter().map(|slot| count(&slot[member])).sum()
}

impl Drop for Milter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of the milter in {}\n{}",
                show(self.dir.path()),
                self.log()
            );
        }
        // Not by the program under test: it may be what fails. Twice, for a master forks until it is dead.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for pid in left {
                process::signal(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("processes of {} do not die", show(self.dir.path()));
    }
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}
