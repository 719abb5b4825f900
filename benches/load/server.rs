//! The two servers, and what the kernel says of their process trees.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use crate::mta::{Address, Mta};

/// What the filter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Every callback exists and continues; a header is added at the end.
    All,
    /// Only the end of message; everything else is declined.
    Eom,
}

/// Where it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// UNIX socket
    Unix,
    /// 127.0.0.1
    Tcp,
}

const ALL: &str = r#"
local policy = {}
function policy.connect(ctx, host, family, address, port) end
function policy.helo(ctx, name) end
function policy.mail(ctx, sender, args) end
function policy.rcpt(ctx, recipient, args) end
function policy.data(ctx) end
function policy.header(ctx, name, value) end
function policy.eoh(ctx) end
function policy.body(ctx, chunk) end
function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end
function policy.abort(ctx) end
function policy.close(ctx) end
function policy.unknown(ctx, command) end
return policy
"#;

const EOM: &str = r#"
local policy = {}
function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end
return policy
"#;

impl Filter {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Filter::All => "all callbacks",
            Filter::Eom => "eom only",
        }
    }
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Transport::Unix => "unix",
            Transport::Tcp => "TCP",
        }
    }
}

/// A running server; gone when dropped.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: Address,
    root: i32,
    kind: Kind,
    /// Removed last.
    _dir: tempfile::TempDir,
}

enum Kind {
    Libmilter(Child),
    Pmx { conf: PathBuf },
}

fn directory() -> tempfile::TempDir {
    // A board belongs on tmpfs.
    let base = if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    };
    let dir = tempfile::Builder::new()
        .prefix("pmx-bench-")
        .tempdir_in(base)
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// The address, and the port as both libmilter and pmx.conf write it.
fn place(dir: &Path, transport: Transport) -> (Address, String) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    match transport {
        Transport::Unix => {
            let path = dir.join("socket");
            let text = format!("unix:{}", path.display());
            (Address::Unix(path), text)
        }
        Transport::Tcp => loop {
            let seed = u16::try_from(std::process::id() % 9000).unwrap();
            let port = 20_000 + (seed + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
            if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
                let address = Address::Tcp(([127, 0, 0, 1], port).into());
                return (address, format!("inet:{port}@127.0.0.1"));
            }
        },
    }
}

fn wait_for(address: &Address) {
    let end = Instant::now() + Duration::from_secs(30);
    while Mta::ready(address, Duration::from_secs(5)).is_err() {
        assert!(Instant::now() < end, "no filter at {address:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Server {
    /// The peer.
    pub(crate) fn libmilter(filter: Filter, transport: Transport) -> Server {
        let program = std::env::var_os("PMX_BENCH_PEER")
            .expect("PMX_BENCH_PEER names the built libmilter filter: use benches/run");
        let dir = directory();
        let (address, port) = place(dir.path(), transport);
        let mode = match filter {
            Filter::All => "all",
            Filter::Eom => "eom",
        };
        let child = Command::new(program)
            .args([&port, mode])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&address);
        Server {
            address,
            root: i32::try_from(child.id()).unwrap(),
            kind: Kind::Libmilter(child),
            _dir: dir,
        }
    }

    /// Ours, with these settings beside the defaults.
    pub(crate) fn pmx(filter: Filter, transport: Transport, settings: &str) -> Server {
        let dir = directory();
        let (address, port) = place(dir.path(), transport);
        let run_dir = dir.path().join("run");
        let user = if nix::unistd::geteuid().is_root() {
            "user = \"nobody\"\n"
        } else {
            ""
        };
        let policy = match filter {
            Filter::All => ALL,
            Filter::Eom => EOM,
        };
        fs::write(dir.path().join("policy.lua"), policy).unwrap();
        let conf = dir.path().join("pmx.conf");
        let text = format!(
            "run_dir = \"{}\"\n{user}log_to = \"file:{}\"\n[milter.bench]\nport = \"{port}\"\npolicy = \"policy.lua\"\n{settings}\n",
            run_dir.display(),
            dir.path().join("log").display()
        );
        fs::write(&conf, text).unwrap();
        let output = pmx(&conf, &["start"]);
        assert!(output.status.success(), "{output:?}");
        let root = fs::read_to_string(run_dir.join("bench.pid")).unwrap();
        wait_for(&address);
        Server {
            address,
            root: root.trim().parse().unwrap(),
            kind: Kind::Pmx { conf },
            _dir: dir,
        }
    }

    /// Its processes now: the first one, and its children.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut pids = vec![self.root];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if stat(pid).is_some_and(|fields| fields[1] == self.root.to_string()) {
                pids.push(pid);
            }
        }
        pids
    }

    /// CPU time of the whole tree so far, children that have ended included.
    pub(crate) fn cpu(&self) -> Duration {
        let living: Duration = self.processes().into_iter().filter_map(cpu_of).sum();
        // Fields 16 and 17: time of children waited for, in ticks of 10 ms.
        let ended = stat(self.root).map_or(0, |fields| {
            fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
        });
        living + Duration::from_millis(ended * 10)
    }

    /// Bytes of the tree, shared pages counted in proportion.
    pub(crate) fn memory(&self) -> u64 {
        self.processes()
            .into_iter()
            .filter_map(|pid| {
                let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
                let line = text.lines().find(|line| line.starts_with("Pss:"))?;
                let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
                Some(kib * 1024)
            })
            .sum()
    }
}

/// CPU time of all threads of a process, in nanoseconds rather than ticks.
fn cpu_of(pid: i32) -> Option<Duration> {
    let clock: ClockId = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
    Some(Duration::from(clock.now().ok()?))
}

/// The fields of /proc/PID/stat from the third on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn pmx(conf: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_pmx-milter"))
        .arg("-c")
        .arg(conf)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Ten thousand sessions need as many descriptors, here and in the peer.
pub(crate) fn raise_descriptor_limit() {
    let raise = || -> io::Result<()> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(())
    };
    if let Err(error) = raise() {
        eprintln!("cannot raise the limit of open files: {error}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Libmilter(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Kind::Pmx { conf } => {
                let output = pmx(conf, &["stop", "-KILL"]);
                if !output.status.success() {
                    eprintln!("stop failed: {output:?}");
                }
            }
        }
    }
}
