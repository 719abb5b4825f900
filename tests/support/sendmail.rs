//! A throw-away Sendmail, unpacked from its packages (they conflict with Postfix's): own directory, own port, private host name
//! and hosts file, for it would wait a minute for a name with a dot and ask the network otherwise. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::command::{Running, run, spawn};
use super::ports::{free_port, greets};
use super::{SOON, process, wait_until};

/// The MTA; stopped and removed when dropped.
pub struct Sendmail {
    dir: tempfile::TempDir,
    /// Where it takes mail.
    pub port: u16,
    daemon: Running,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/sendmail")
}

impl Sendmail {
    /// Starts one that asks `milter` (the `S=` of `INPUT_MAIL_FILTER`) and delivers to the sink's port; without a sink it keeps
    /// messages in its queue.
    pub fn start(milter: &str, sink: Option<u16>) -> Sendmail {
        let program = root().join("usr/libexec/sendmail/sendmail");
        assert!(
            program.exists() && super::is_root(),
            "this test needs root and {}: run tests/run, or leave it out with -- --skip needs_sendmail::",
            program.display()
        );
        let dir = tempfile::Builder::new()
            .prefix("pmx-sendmail-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        write_configuration(dir.path(), port, milter, sink);
        let mut command = Command::new("unshare");
        command
            .args(["-um", "sh", "-c"])
            .arg(
                "mount --bind \"$1/hosts\" /etc/hosts && mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf &&
                 hostname mx.test.example && exec \"$2\" -C \"$1/sendmail.cf\" -bD",
            )
            .arg("sh")
            .arg(dir.path())
            .arg(program)
            .stdin(Stdio::null());
        let mut daemon = spawn(command);
        wait_until(SOON, "Sendmail greets", || {
            assert!(!daemon.has_ended(), "Sendmail ended: {}", daemon.said());
            greets(port).then_some(())
        });
        Sendmail { dir, port, daemon }
    }

    /// Names in its queue: `qf*` envelope and headers, `df*` body, `hf*` quarantined.
    pub fn queued(&self, prefix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("queue")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with(prefix)
            })
            .collect()
    }
}

fn write_configuration(dir: &Path, port: u16, milter: &str, sink: Option<u16>) {
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    fs::create_dir(dir.join("queue")).unwrap();
    fs::set_permissions(dir.join("queue"), fs::Permissions::from_mode(0o700)).unwrap();
    write("aliases", "");
    write("service.switch", "hosts files\naliases files\n");
    write(
        "hosts",
        "127.0.0.1 localhost\n127.0.0.1 mx.test.example mx\n",
    );
    write(
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    );
    let mode = if sink.is_some() {
        "background"
    } else {
        "queueonly"
    };
    let (shown, sink) = (dir.display(), sink.unwrap_or(9));
    let text = format!(
        "OSTYPE(`linux')dnl
define(`confDOMAIN_NAME', `mx.test.example')dnl
define(`QUEUE_DIR', `{shown}/queue')dnl
define(`ALIAS_FILE', `{shown}/aliases')dnl
define(`STATUS_FILE', `{shown}/statistics')dnl
define(`confPID_FILE', `{shown}/sendmail.pid')dnl
define(`confSERVICE_SWITCH_FILE', `{shown}/service.switch')dnl
define(`confDONT_BLAME_SENDMAIL', `GroupWritableDirPathSafe')dnl
define(`confTO_IDENT', `0')dnl
define(`confDELIVERY_MODE', `{mode}')dnl
define(`confMILTER_LOG_LEVEL', `14')dnl
define(`confSAFE_QUEUE', `False')dnl
define(`confQUEUE_LA', `100')dnl
define(`confREFUSE_LA', `200')dnl
define(`confDELAY_LA', `0')dnl
define(`confCONNECTION_RATE_THROTTLE', `0')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`promiscuous_relay')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
FEATURE(`nocanonify')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port={port}')dnl
INPUT_MAIL_FILTER(`pmx', `S={milter}, F=T, T=C:10s;S:10s;R:10s;E:1m')dnl
define(`SMART_HOST', `relay:[127.0.0.1]')dnl
define(`RELAY_MAILER_ARGS', `TCP $h {sink}')dnl
MAILER(`smtp')dnl
"
    );
    write("sendmail.mc", &text);
    let macros = root().join("usr/share/sendmail/cf");
    let mut command = Command::new("m4");
    command
        .arg(format!("-D_CF_DIR_={}/", macros.display()))
        .arg(macros.join("m4/cf.m4"))
        .arg(dir.join("sendmail.mc"));
    let made = run(command, SOON).expect(0);
    write("sendmail.cf", &made.out);
}

impl Drop for Sendmail {
    fn drop(&mut self) {
        let members = process::children(self.daemon.pid());
        process::signal(self.daemon.pid(), Signal::SIGTERM);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !self.daemon.has_ended() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        for pid in members {
            if process::runs(pid) {
                process::signal(pid, Signal::SIGKILL);
            }
        }
    }
}
