//! A throw-away Postfix: own directory, own port, no real delivery, no name look-ups. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::command::{Outcome, run};
use super::ports::{free_port, greets};
use super::{SOON, process, wait_until};

/// Services of master.cf that it needs.
const SERVICES: [&str; 16] = [
    "pickup", "cleanup", "qmgr", "rewrite", "bounce", "defer", "trace", "showq", "error", "retry",
    "discard", "anvil", "flush", "proxymap", "postlog", "smtp",
];

/// The MTA; stopped and removed when dropped.
pub struct Postfix {
    dir: tempfile::TempDir,
    /// Where it takes mail.
    pub port: u16,
}

impl Postfix {
    /// Starts one that asks `milter` (as `smtpd_milters` has it) and delivers to the sink's port; without a sink it discards.
    pub fn start(milter: &str, sink: Option<u16>) -> Postfix {
        assert!(
            Path::new("/usr/sbin/postfix").exists() && super::is_root(),
            "this test needs root and Postfix: run tests/run, or leave it out with -- --skip needs_postfix::"
        );
        let dir = tempfile::Builder::new()
            .prefix("pmx-postfix-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let postfix = Postfix {
            dir,
            port: free_port(),
        };
        postfix.write_configuration(milter, sink);
        postfix.postfix(&["start"]).expect(0);
        wait_until(SOON, "Postfix greets", || {
            greets(postfix.port).then_some(())
        });
        postfix
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_configuration(&self, milter: &str, sink: Option<u16>) {
        for name in ["conf", "spool", "data"] {
            fs::create_dir(self.path(name)).unwrap();
        }
        let owner = nix::unistd::User::from_name("postfix").unwrap().unwrap();
        nix::unistd::chown(&self.path("data"), Some(owner.uid), None).unwrap();
        let transport = sink.map_or_else(
            || "discard:".to_owned(),
            |port| format!("smtp:[127.0.0.1]:{port}"),
        );
        let dir = self.dir.path().display();
        let main = format!(
            "compatibility_level = 3.6
queue_directory = {dir}/spool
data_directory = {dir}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {dir}/maillog
maillog_file_prefixes = {dir}
myhostname = mx.test.example
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
default_transport = {transport}
relay_transport = {transport}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
smtpd_peername_lookup = no
alias_maps =
alias_database =
smtpd_milters = {milter}
non_smtpd_milters = {milter}
milter_default_action = tempfail
"
        );
        fs::write(self.path("conf/main.cf"), main).unwrap();
        let template = fs::read_to_string("/etc/postfix/master.cf.proto").unwrap();
        let mut master = String::new();
        for line in template.lines() {
            let mut fields: Vec<&str> = line.split_whitespace().collect();
            let is_service = fields.len() >= 8
                && !line.starts_with([' ', '#'])
                && SERVICES.contains(&fields[0])
                // `smtp inet` is the server on port 25.
                && (fields[0] != "smtp" || fields[1] == "unix");
            if is_service {
                if fields[4] == "y" {
                    fields[4] = "n"; // no chroot: the spool has no /etc
                }
                master.push_str(&fields.join(" "));
                master.push('\n');
            }
        }
        master.push_str(&format!("127.0.0.1:{} inet n - n - - smtpd\n", self.port));
        fs::write(self.path("conf/master.cf"), master).unwrap();
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.path("conf")).args(arguments);
        run(command, 2 * SOON)
    }

    fn postfix(&self, arguments: &[&str]) -> Outcome {
        self.tool("/usr/sbin/postfix", arguments)
    }

    /// Changes settings (`name=value`) and makes them known.
    pub fn set(&self, settings: &[&str]) {
        for setting in settings {
            self.tool("/usr/sbin/postconf", &["-e", setting]).expect(0);
        }
        self.postfix(&["reload"]).expect(0);
    }

    /// The queue as `postqueue -p` prints it: `!` behind an id is a message on hold.
    pub fn queue(&self) -> String {
        self.tool("/usr/sbin/postqueue", &["-p"]).expect(0).out
    }

    /// Mail that does not come by SMTP: given to the sendmail command.
    pub fn submit(&self, sender: &str, recipient: &str, content: &str) -> Outcome {
        let file = self.path("submitted");
        fs::write(&file, content).unwrap();
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "exec /usr/sbin/sendmail -f \"$1\" \"$2\" < \"$3\"",
                "sh",
            ])
            .args([sender, recipient])
            .arg(file)
            .env("MAIL_CONFIG", self.path("conf"));
        run(command, 2 * SOON)
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("maillog")).unwrap_or_default()
    }

    /// Waits for a text in its log.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_until(SOON, &format!("{text:?} in Postfix's log"), || {
            self.log().contains(text).then_some(())
        });
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of Postfix\n{}", self.log());
        }
        let master = fs::read_to_string(self.path("spool/pid/master.pid"))
            .ok()
            .and_then(|text| text.trim().parse::<i32>().ok());
        let Some(master) = master else { return };
        let members = process::children(master);
        process::signal(master, Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(10);
        while process::runs(master) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in members.into_iter().chain([master]) {
            if process::runs(pid) {
                process::signal(pid, Signal::SIGKILL);
            }
        }
    }
}
