//! A child of a milter, taken over: an attacker who broke out of Lua is made by ptrace(2), so that the shipped program needs no way in.
//!
//! What is called here is called by the child itself, under its own user, filters and limits. x86-64 only, and root: nobody else may trace
//! a child. The child must have one thread, and the one who seizes it must be the one who lets go.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Machine code that makes one system call over and over, with the registers that it is entered with: mov eax, NR; syscall; jmp back.
fn over_and_over(number: i64) -> [u8; 9] {
    let [a, b, c, d] = u32::try_from(number).unwrap().to_le_bytes();
    [0xb8, a, b, c, d, 0x0f, 0x05, 0xeb, 0xf7]
}
/// jmp to itself.
const FOR_EVER: [u8; 2] = [0xeb, 0xfe];

/// A child that does what we want.
pub struct Hijacked {
    pid: Pid,
    /// As it was seized.
    registers: user_regs_struct,
    /// A `syscall` instruction in its text.
    gate: u64,
    memory: File,
    /// Where the next bytes for its calls go.
    scratch: u64,
}

/// A part of its address space.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub rights: String,
    pub name: String,
}

/// The address space of a process (proc(5), maps).
pub fn mappings(pid: i32) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let lines = text.lines().map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        Mapping {
            start: number(start),
            end: number(end),
            rights: words.next().unwrap().to_owned(),
            name: words.skip(3).collect::<Vec<_>>().join(" "),
        }
    });
    lines.collect()
}

/// The one mapping whose name contains this.
#[track_caller]
pub fn mapping(pid: i32, name: &str) -> Mapping {
    let mut found: Vec<Mapping> = mappings(pid)
        .into_iter()
        .filter(|it| it.name.contains(name))
        .collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found.remove(0)
}

/// The memory of a process.
pub fn memory(pid: i32) -> File {
    let path = format!("/proc/{pid}/mem");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}; this test needs root and ptrace"))
}

impl Hijacked {
    /// Takes over a process that has one thread, wherever it is.
    #[track_caller]
    pub fn seize(pid: i32) -> Hijacked {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        assert_eq!(threads, 1, "{pid} has {threads} threads");
        let memory = memory(pid);
        let text = mappings(pid)
            .into_iter()
            .find(|it| it.rights.starts_with("r-x") && it.name.starts_with('/'))
            .expect("a text segment");
        let mut bytes = vec![0; usize::try_from(text.end - text.start).unwrap()];
        memory.read_exact_at(&mut bytes, text.start).unwrap();
        let at = bytes.windows(2).position(|pair| pair == [0x0f, 0x05]);
        let gate = text.start + at.expect("a syscall instruction") as u64;
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, Options::empty()).expect("this test needs root and ptrace");
        ptrace::interrupt(pid).unwrap();
        let stopped = waitpid(pid, None).unwrap();
        assert!(
            matches!(stopped, WaitStatus::PtraceEvent(..)),
            "{stopped:?}"
        );
        let registers = ptrace::getregs(pid).unwrap();
        Hijacked {
            pid,
            registers,
            gate,
            memory,
            // Below its stack and red zone: nobody looks there.
            scratch: (registers.rsp - 64 * 1024) & !63,
        }
    }

    /// Puts bytes into its memory; their address there.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.scratch;
        self.memory.write_all_at(bytes, at).unwrap();
        self.scratch += (bytes.len() as u64 + 63) & !63;
        assert!(self.scratch < self.registers.rsp - 1024, "no room is left");
        at
    }

    /// Puts a path into its memory.
    pub fn put_path(&mut self, path: &Path) -> u64 {
        let mut bytes = path.to_str().unwrap().as_bytes().to_vec();
        bytes.push(0);
        self.put(&bytes)
    }

    /// Writes to its memory.
    #[track_caller]
    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).unwrap();
    }

    fn enter(&self, at: u64, number: i64, arguments: &[u64]) {
        let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
        let mut registers = self.registers;
        registers.rip = at;
        registers.rax = number.cast_unsigned();
        // Not a system call that the kernel might begin anew.
        registers.orig_rax = u64::MAX;
        registers.rdi = argument(0);
        registers.rsi = argument(1);
        registers.rdx = argument(2);
        registers.r10 = argument(3);
        registers.r8 = argument(4);
        registers.r9 = argument(5);
        ptrace::setregs(self.pid, registers).unwrap();
    }

    /// Makes it call the kernel; what the kernel answers, -errno for a failure.
    #[track_caller]
    pub fn call(&mut self, number: i64, arguments: &[u64]) -> i64 {
        self.enter(self.gate, number, arguments);
        ptrace::step(self.pid, None).unwrap();
        let stopped = waitpid(self.pid, None).unwrap();
        assert_eq!(
            stopped,
            WaitStatus::Stopped(self.pid, Signal::SIGTRAP),
            "{number}"
        );
        ptrace::getregs(self.pid).unwrap().rax.cast_signed()
    }

    /// Makes it open a file.
    #[track_caller]
    pub fn open(&mut self, path: &Path, flags: i32) -> i64 {
        let path = self.put_path(path);
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        let flags = u64::from(flags.cast_unsigned());
        self.call(libc::SYS_openat, &[here, path, flags, 0o666])
    }

    /// It goes on as if nothing had happened.
    pub fn let_go(self) {
        ptrace::setregs(self.pid, self.registers).unwrap();
        ptrace::detach(self.pid, None).unwrap();
    }

    /// It makes this call over and over from now on, and does nothing else any more.
    pub fn let_go_calling(self, number: i64, arguments: &[u64]) {
        self.overwrite(&over_and_over(number));
        self.enter(self.gate, number, arguments);
        ptrace::detach(self.pid, None).unwrap();
    }

    /// It hangs in native code from now on.
    pub fn let_go_hanging(self) {
        self.overwrite(&FOR_EVER);
        self.enter(self.gate, 0, &[]);
        ptrace::detach(self.pid, None).unwrap();
    }

    /// Its own copy of the text: as its tracer we may.
    fn overwrite(&self, code: &[u8]) {
        self.memory.write_all_at(code, self.gate).unwrap();
    }
}
