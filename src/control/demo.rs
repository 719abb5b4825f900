//! `demo`: a throw-away milter on a free loopback port, real sessions through it, its status. Nothing of it stays, whatever happens.
#![forbid(unsafe_code)]

mod sessions;

use std::cell::Cell;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use crate::config::{Config, MilterConfig, MilterName};
use crate::run_dir::{self, Paths};
use crate::sys::{signal, user};

use super::launch::{self, Outcome, launch};
use super::place::Found;
use super::terminal::{complain, say, warn};
use super::{AsRoot, Exit, Launch, MasterMain, start, status, stop};
use sessions::{MESSAGES, SESSIONS, Went};

/// The policy, so that a demo needs no file.
const POLICY: &str = include_str!("../../examples/add_header.lua");
/// Somebody may take a free port between our asking and the milter's binding.
const PORT_TRIES: u32 = 5;
/// As root: whose rights are the least.
const NOBODY: &str = "nobody";
/// Progress is told so often.
const STEPS: u64 = 4;

/// The verb.
pub fn demo(main: MasterMain) -> Exit {
    // Ctrl-C must not leave a milter behind: from here on it is read, not obeyed.
    let interrupts = match signal::descriptor(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]) {
        Ok(interrupts) => interrupts,
        Err(error) => return failed(format_args!("cannot watch signals: {error}")),
    };
    let scene = match Scene::new() {
        Ok(scene) => scene,
        Err(error) => {
            return failed(format_args!(
                "cannot make a directory in {}: {error}; TMPDIR names another place",
                std::env::temp_dir().display()
            ));
        }
    };
    match play(&scene, main, &interrupts) {
        Ok(()) => Exit::Done,
        Err(exit) => exit,
    }
}

fn failed(text: impl std::fmt::Display) -> Exit {
    complain(format_args!("demo: {text}"));
    Exit::Failed
}

/// The temporary directory, and whatever runs in it: both end with this value.
struct Scene {
    dir: PathBuf,
    name: MilterName,
    /// Our child, to be waited for: in a container nobody else may do it.
    master: Cell<Option<Pid>>,
}

impl Scene {
    fn new() -> io::Result<Scene> {
        let name = "demo"
            .parse()
            .expect("the word demo is a good name for a milter");
        let dir = nix::unistd::mkdtemp(&std::env::temp_dir().join("pmx-milter-demo.XXXXXX"))?;
        let master = Cell::new(None);
        let scene = Scene { dir, name, master };
        // As root the policy is read by another user.
        fs::set_permissions(&scene.dir, fs::Permissions::from_mode(0o755))?;
        fs::write(scene.dir.join("policy.lua"), POLICY)?;
        fs::set_permissions(
            scene.dir.join("policy.lua"),
            fs::Permissions::from_mode(0o644),
        )?;
        Ok(scene)
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The configuration with a port that is free now.
    fn config(&self) -> Result<Config, Exit> {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|error| failed(format_args!("no free port on 127.0.0.1: {error}")))?
            .port();
        let user = if user::effective_uid() == 0 {
            NOBODY.to_owned()
        } else {
            user::effective_name()
        };
        let text = format!(
            "run_dir = \"run\"\nuser = \"{user}\"\nlog_to = \"file:demo.log\"\n[milter.{}]\nport = \"inet:{port}@127.0.0.1\"\npolicy = \"policy.lua\"\nmin_pooled_procs = 2\nmax_pooled_procs = 4\n",
            self.name
        );
        Config::parse_text(&self.dir.join("pmx.conf"), &text)
            .map_err(|problems| failed(format_args!("{problems}")))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        stop::end_now(&Paths::new(&self.run_dir(), &self.name));
        if let Some(pid) = self.master.take() {
            launch::end(pid);
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            warn(format_args!(
                "demo: cannot remove {}: {error}",
                self.dir.display()
            ));
        }
    }
}

fn play(scene: &Scene, main: MasterMain, interrupts: &SignalFd) -> Result<(), Exit> {
    let config = begin(scene, main)?;
    let milter = milter(&config, scene)?;
    let mut told = 0;
    let went = sessions::drive(&milter.port, |finished| {
        let step = finished * STEPS / SESSIONS;
        if step > told {
            told = step;
            say(format_args!(
                "demo: {finished} of {SESSIONS} sessions, {} messages",
                finished * MESSAGES
            ));
        }
        !interrupted(interrupts)
    });
    match went {
        Went::Well => {}
        Went::Interrupted => return Err(failed("interrupted")),
        Went::Badly(error) => {
            tell_log(&scene.dir);
            return Err(failed(format_args!("a session failed: {error}")));
        }
    }
    let found = Found {
        run_dir: scene.run_dir(),
        config: Some(config),
    };
    say(format_args!(
        "\nThis is what pmx-milter status shows:\n\n{}",
        status::page(&found).trim_end()
    ));
    say(
        "\nEvery message got a header X-Filter from this policy: examples/add_header.lua. Stopping:",
    );
    stop::gracefully(&found, &scene.name)
}

/// Starts the milter; another port is tried when ours was taken meanwhile.
fn begin(scene: &Scene, main: MasterMain) -> Result<Config, Exit> {
    let how = Launch {
        main,
        as_root: AsRoot::MasterStays,
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let config = scene.config()?;
        let milter = milter(&config, scene)?;
        let account = start::account(&config)?;
        run_dir::prepare(&config.run_dir).map_err(failed)?;
        // What the demo's surroundings lack is no concern of who looks at it.
        let outcome = launch(how, milter, &config.run_dir, account.as_ref(), |_| {})
            .map_err(|error| failed(format_args!("cannot make a process: {error}")))?;
        match outcome {
            Outcome::Ready(pid) => {
                scene.master.set(Some(Pid::from_raw(pid)));
                say(format_args!(
                    "demo: a milter on {}, its master is pid {pid}",
                    milter.port
                ));
                return Ok(config);
            }
            Outcome::Failed(_, text) if text.contains("in use") && tries < PORT_TRIES => {}
            Outcome::Interrupted(_) => return Err(failed("interrupted")),
            Outcome::Failed(exit, text) => {
                tell_log(&scene.dir);
                failed(text);
                return Err(exit);
            }
            other => {
                tell_log(&scene.dir);
                return Err(failed(format_args!("the milter did not start: {other:?}")));
            }
        }
    }
}

fn milter<'a>(config: &'a Config, scene: &Scene) -> Result<&'a MilterConfig, Exit> {
    config
        .milter(&scene.name)
        .ok_or_else(|| failed("its configuration has no milter"))
}

fn interrupted(interrupts: &SignalFd) -> bool {
    matches!(interrupts.read_signal(), Ok(Some(_)))
}

/// The log goes with the directory, so it is shown when something went wrong.
fn tell_log(dir: &Path) {
    if let Ok(log) = fs::read_to_string(dir.join("demo.log"))
        && !log.is_empty()
    {
        complain(format_args!("demo: its log:\n{}", log.trim_end()));
    }
}
