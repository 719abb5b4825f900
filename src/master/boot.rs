//! The start order of a master: each step needs those before it, and the first that fails gives the reason, with nothing left behind.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signalfd::SignalFd;
use scoreboard::{Board, Spec};

use super::board::Books;
use super::listener::{Access, ListenError, Listener};
use super::notify::Notify;
use super::report::Line;
use super::{Master, Phase, Report, Setup, takeover, turn};
use crate::checker::Keeps;
use crate::config::{LogTo, MilterConfig, Port};
use crate::run_dir::{self, Paths};
use crate::sys::backlog::BacklogGauge;
use crate::sys::user::{self, Account};
use crate::sys::{capability, lock, process, random, sandbox, signal};

/// Exit statuses of a start (LSB).
pub(super) mod status {
    pub(in crate::master) const GENERIC: i32 = 1;
    pub(in crate::master) const PERMISSION: i32 = 4;
    pub(in crate::master) const NOT_CONFIGURED: i32 = 6;
}

/// Bytes of the lock file for one master's children: more than a board has slots.
const LOCK_SPAN: i64 = 1 << 20;
/// Connections below which a start without a pool warns.
const FEW_CONNECTIONS: u64 = 1024;
/// What the master has open for a child: both ends of the control socket, and the control page.
const DESCRIPTORS_OF_A_CHILD: u64 = 3;
/// What a process has open beside its connections or children: log, sockets of its own, overload answers, files of the policy.
const OTHER_DESCRIPTORS: u64 = 128;
/// How long somebody may take to clean up behind a dead master.
const TIDYING: Duration = Duration::from_secs(2);

/// Why it does not start.
pub(super) struct Refusal {
    pub(super) status: i32,
    pub(super) text: String,
}

pub(super) fn refuse(status: i32, text: impl std::fmt::Display) -> Refusal {
    Refusal {
        status,
        text: text.to_string(),
    }
}

/// The status for an error of the system.
fn system(what: &str, error: &io::Error) -> Refusal {
    refuse(kind(error), format_args!("{what}: {error}"))
}

/// The exit status of an error of the system.
pub(super) fn kind(error: &io::Error) -> i32 {
    if error.kind() == io::ErrorKind::PermissionDenied {
        status::PERMISSION
    } else {
        status::GENERIC
    }
}

/// A port that cannot be had.
pub(super) fn no_port(error: &ListenError) -> Refusal {
    let status = if error.is_permission() {
        status::PERMISSION
    } else {
        status::GENERIC
    };
    refuse(status, error)
}

/// A log file that cannot be opened.
pub(super) fn no_log(error: &crate::log::LogError) -> Refusal {
    refuse(kind(error.cause()), error)
}

/// Starts a master up to the point where its loop forks the first children. `Err` is the exit status; the reason has been reported.
pub(super) fn boot(mut setup: Setup) -> Result<Box<Master>, i32> {
    process::keep_others_out();
    let foreground = setup.foreground;
    let mut report = std::mem::replace(&mut setup.report, Report::Done);
    match try_boot(setup, &mut report) {
        Ok(Some(mut master)) => {
            master.report = report;
            Ok(master)
        }
        // A supervisor that runs us must not take this for a milter that has ended well.
        Ok(None) => Err(if foreground { status::GENERIC } else { 0 }),
        Err(refusal) => {
            report.last(&Line::Failed(refusal.status, refusal.text));
            Err(refusal.status)
        }
    }
}

fn try_boot(setup: Setup, report: &mut Report) -> Result<Option<Box<Master>>, Refusal> {
    let Setup {
        milter,
        run_dir,
        account,
        foreground,
        ..
    } = setup;
    let name = milter.name.clone();
    let fail = |text: String| format!("milter {name}: {text}");
    if account.is_none() && user::effective_uid() == 0 {
        return Err(refuse(
            status::NOT_CONFIGURED,
            fail("a policy never runs as root, and no user is known".to_owned()),
        ));
    }
    let in_full = |refusal: Refusal| Refusal {
        text: fail(refusal.text),
        ..refusal
    };
    log_place(&milter, foreground).map_err(in_full)?;
    if !foreground {
        // A Ctrl-C or hang-up of the terminal that started us is not for us, and no mount is kept busy.
        process::new_session()
            .map_err(|error| system("cannot leave the terminal's session", &error))?;
        std::env::set_current_dir("/").map_err(|error| system("cannot change to /", &error))?;
    }
    let signals = signal::descriptor(&signal::MASTER)
        .map_err(|error| system("cannot block signals", &error))?;
    process::set_umask(milter.umask);
    process::set_name(&format!("pmx-m {name}"));
    let descriptors = process::raise_descriptor_limit();
    // After the limit was raised, which may need one that goes.
    capability::keep_what_a_master_needs()
        .map_err(|error| system(&fail("cannot give up capabilities".to_owned()), &error))?;
    run_dir::prepare(&run_dir)
        .map_err(|error| refuse(status::PERMISSION, fail(error.to_string())))?;
    let paths = Paths::new(&run_dir, &name);
    let group = status_group(&milter, account.as_ref()).map_err(in_full)?;
    let Some(lock) = take_lock(&paths, &milter, group).map_err(in_full)? else {
        let pid = lock::holders(&paths.lock())
            .ok()
            .and_then(|holders| holders.first().map(|holder| holder.pid.as_raw()))
            .unwrap_or(0);
        report.last(&Line::Already(pid));
        return Ok(None);
    };
    let lock_base = lock_base(&lock);
    let capacity = capacity(&milter, descriptors);
    warn_early(&milter, descriptors, capacity, account.as_ref(), report);
    start_log(&milter, &paths, account.as_ref(), report)
        .map_err(|error| in_full(no_log(&error)))?;
    say_sandbox(&milter);
    let access = socket_access(&milter, account.as_ref()).map_err(in_full)?;
    let listener =
        Listener::bind(&milter.port, access).map_err(|error| in_full(no_port(&error)))?;
    // From here on the socket's file is ours to remove.
    let built = build(&milter, &paths, account.clone(), group, report);
    let (bundle, books) = match built {
        Ok(built) => built,
        Err(refusal) => {
            listener.remove_file();
            return Err(in_full(refusal));
        }
    };
    let now = Instant::now();
    let (epoll, wakes) = match loops(&signals) {
        Ok(loops) => loops,
        Err(error) => {
            listener.remove_file();
            books.board.remove_file();
            return Err(system(
                &fail("cannot make its event loop".to_owned()),
                &error,
            ));
        }
    };
    let tcp = listener.is_tcp();
    let children = std::iter::repeat_with(|| None)
        .take(milter.most_slots() as usize)
        .collect();
    Ok(Some(Box::new(Master {
        phase: Phase::Starting(now + milter.start_timeout),
        notify: Notify::new(foreground),
        report: Report::Done,
        milter,
        paths,
        account,
        bundle: Arc::new(bundle),
        foreground,
        lock,
        lock_base,
        books,
        listener: Some(listener),
        signals,
        epoll,
        wakes,
        wakes_awaited: false,
        listener_awaited: false,
        children,
        in_hand: VecDeque::new(),
        generation: 1,
        askers: Vec::new(),
        unanswered: Vec::new(),
        trial: None,
        exchange: None,
        successors: 0,
        slots_before: 0,
        grow: false,
        backoff_until: None,
        resources_until: None,
        next_tick: now,
        next_line: now,
        backlog: BacklogGauge::new(tcp),
        sample_from: 0,
        episode: None,
        full_said: None,
        shortages: super::shortage::Shortages::default(),
        capacity,
        start_failure: None,
        start_status: 0,
        accept_batch: 1,
        tcp,
        random: random::seed().unwrap_or(0x9e37_79b9_7f4a_7c15) | 1,
    })))
}

/// The loop's own poller and the one for the children.
pub(super) fn loops(signals: &SignalFd) -> io::Result<(Epoll, Epoll)> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let wakes = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(signals, EpollEvent::new(EpollFlags::EPOLLIN, turn::SIGNALS))?;
    epoll.add(&wakes.0, EpollEvent::new(EpollFlags::empty(), turn::WAKES))?;
    Ok((epoll, wakes))
}

/// Policy and board: what can fail after the port is ours.
fn build(
    milter: &MilterConfig,
    paths: &Paths,
    account: Option<Account>,
    group: Option<u32>,
    report: &mut Report,
) -> Result<(crate::policy::Bundle, Books), Refusal> {
    let bundle = takeover::check_policy(milter, account.as_ref(), Keeps::Everything)?;
    let spec = board_spec(milter, group);
    let board = make_board(paths, &paths.board(), &spec)?;
    if let Some(warning) = board.warning() {
        report.warning(&warning);
        log::warn!("{warning}");
    }
    Ok((bundle, Books::new(board, milter)))
}

/// What a new board shall be.
pub(super) fn board_spec(milter: &MilterConfig, group: Option<u32>) -> Spec {
    Spec {
        capacity: milter.max_pooled_procs.saturating_mul(4).max(1024),
        mode: milter.status_mode,
        group,
        previous_instance: [0, 0],
    }
}

/// Makes a board.
pub(super) fn make_board(paths: &Paths, file: &Path, spec: &Spec) -> Result<Board, Refusal> {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Board::create(paths.dir(), &name, spec).map_err(|error| {
        let status = match std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<io::Error>())
        {
            Some(error) => kind(error),
            None => status::GENERIC,
        };
        refuse(
            status,
            format_args!("cannot make the board {}: {error}", file.display()),
        )
    })
}

/// Opens and takes the lock; `None` when another master has it. The file is never closed while we live, and never removed: both would lose locks.
fn take_lock(
    paths: &Paths,
    milter: &MilterConfig,
    group: Option<u32>,
) -> Result<Option<File>, Refusal> {
    let path = paths.lock();
    let failed = |what: &str, next: &str, error: io::Error| {
        let text = format_args!("cannot {what} {}: {error}; {next}", path.display());
        refuse(kind(&error), text)
    };
    let who = "run this as the user that started the milter before, or as root";
    let file = lock::open_to_take(&path, true)
        .map_err(|error| failed("open the lock file", who, error))?;
    // A stop that tidies up behind a dead master has the lock for an instant, and is not listed among the others.
    let patience = Instant::now() + TIDYING;
    let locked = |error| failed("lock", who, error);
    while !lock::take(&file, 0).map_err(locked)? {
        let holders = lock::others(&file).map_err(locked)?;
        if holders.iter().any(|holder| holder.byte == 0) || Instant::now() >= patience {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    file.set_permissions(fs::Permissions::from_mode(milter.status_mode))
        .map_err(|error| failed("set the mode (status_mode) of", who, error))?;
    // What a master of the user's left behind becomes root's: the owner tells who may be believed to hold it.
    let owner = (user::effective_uid() == 0).then_some(0);
    if owner.is_some() || group.is_some() {
        let next = "name a group that the user is in";
        std::os::unix::fs::fchown(&file, owner, group)
            .map_err(|error| failed("set the group (status_group) of", next, error))?;
    }
    Ok(Some(file))
}

/// The first range of lock bytes that no orphan holds.
fn lock_base(file: &File) -> i64 {
    // Not by the path: closing a second descriptor of the file would drop our lock on byte 0.
    let holders = lock::others(file).unwrap_or_default();
    (0..1024)
        .map(|range| 1 + range * LOCK_SPAN)
        .find(|base| {
            holders
                .iter()
                .all(|holder| !(*base..base + LOCK_SPAN).contains(&holder.byte))
        })
        .unwrap_or(1)
}

/// `log_to = "stderr"` has nobody who reads it once a start has returned.
pub(super) fn log_place(milter: &MilterConfig, foreground: bool) -> Result<(), Refusal> {
    if milter.log_to == LogTo::Stderr && !foreground {
        return Err(wrong(
            "log_to = \"stderr\" goes with \"pmx-milter run\" only; choose journal, syslog or file:PATH",
        ));
    }
    Ok(())
}

fn wrong(text: impl std::fmt::Display) -> Refusal {
    refuse(status::NOT_CONFIGURED, text)
}

pub(super) fn status_group(
    milter: &MilterConfig,
    account: Option<&Account>,
) -> Result<Option<u32>, Refusal> {
    match (&milter.status_group, account) {
        (Some(name), _) => a_group("status_group", name, true).map(Some),
        (None, Some(account)) => Ok(Some(account.gid)),
        (None, None) => Ok(None),
    }
}

/// A group by name. `given`: files are to be given to it, which an ordinary user can do only with groups that it is in.
fn a_group(key: &str, name: &str, given: bool) -> Result<u32, Refusal> {
    let Some(gid) = user::gid_of(name) else {
        return Err(wrong(format_args!(
            "{key} = \"{name}\": there is no such group; create it or name another"
        )));
    };
    if given && !user::may_give_to_group(gid) {
        return Err(wrong(format_args!(
            "{key} = \"{name}\": user {} is not in this group; add it (adduser) or name another",
            user::effective_name()
        )));
    }
    Ok(gid)
}

pub(super) fn socket_access(
    milter: &MilterConfig,
    account: Option<&Account>,
) -> Result<Access, Refusal> {
    let mut access = Access {
        mode: milter.socket_mode,
        owner: account.map(|account| account.uid),
        group: account.map(|account| account.gid),
    };
    let is_file = matches!(&milter.port, Port::Unix(_));
    if let Some(name) = &milter.socket_owner {
        let me = user::effective_uid();
        access.owner = match user::uid_of(name) {
            Some(uid) if me == 0 || uid == me || !is_file => Some(uid),
            Some(_) => {
                return Err(wrong(format_args!(
                    "socket_owner = \"{name}\": only root gives a socket to another user, we are {}; start as root, or use socket_group",
                    user::effective_name()
                )));
            }
            None => {
                return Err(wrong(format_args!(
                    "socket_owner = \"{name}\": there is no such user; create it or name another"
                )));
            }
        };
    }
    if let Some(name) = &milter.socket_group {
        access.group = Some(a_group("socket_group", name, is_file)?);
    }
    Ok(access)
}

/// Tells the log what confines the children: with another kernel it is less, and nobody should believe in more.
pub(super) fn say_sandbox(milter: &MilterConfig) {
    if milter.sandbox {
        let walls = sandbox::Walls::of_this_kernel();
        log::info!(
            "milter {}: its children are confined by {walls}",
            milter.name
        );
    } else {
        log::info!(
            "milter {}: its children are not confined (sandbox = false)",
            milter.name
        );
    }
}

/// Connections that one child carries: what is configured, as far as there are descriptors.
pub(super) fn capacity(milter: &MilterConfig, descriptors: u64) -> Option<u64> {
    let possible = descriptors.saturating_sub(OTHER_DESCRIPTORS).max(1);
    let configured = milter.child_capacity().map_or(u64::MAX, u64::from);
    Some(configured.min(possible))
}

pub(super) fn warn_early(
    milter: &MilterConfig,
    descriptors: u64,
    capacity: Option<u64>,
    account: Option<&Account>,
    report: &mut Report,
) {
    let configured = milter.child_capacity().map(u64::from);
    if let Some(possible) = capacity
        && possible < configured.unwrap_or(FEW_CONNECTIONS)
    {
        report.warning(&format!(
            "only {descriptors} files may be open, so that a process carries {possible} connections at most; raise the limit (ulimit -n, LimitNOFILE=)"
        ));
    }
    let own = u64::from(milter.most_slots()) * DESCRIPTORS_OF_A_CHILD + OTHER_DESCRIPTORS;
    if descriptors < own {
        report.warning(&format!(
            "only {descriptors} files may be open, and the master of {} children needs {own}; raise the limit (ulimit -n, LimitNOFILE=) or lower max_pooled_procs",
            milter.most_children()
        ));
    }
    if account.is_none() {
        report.warning(&format!(
            "running as user {}: master and children share it, so that a child taken over by an attacker could write the board; start as root to keep them apart",
            user::effective_name()
        ));
    }
}

pub(super) fn start_log(
    milter: &MilterConfig,
    paths: &Paths,
    account: Option<&Account>,
    report: &mut Report,
) -> Result<(), crate::log::LogError> {
    let owner = account.map(|account| (account.uid, account.gid));
    let choice = crate::log::start(
        &milter.log_to,
        milter.log_level,
        milter.log_utc,
        &milter.name,
        paths.dir(),
        owner,
    )?;
    if choice.instead.is_some() {
        report.warning(&format!("log lines go to {choice}"));
    }
    Ok(())
}

/// Sleeping is never needed, waiting is: how long a loop waits at most.
pub(super) const TICK: Duration = Duration::from_secs(1);
