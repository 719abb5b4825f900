//! The Debian package: what is in it, and a mail operator's first hour with it, from `dpkg -i` to `dpkg -P`, in a throw-away root.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::SOON;
use support::command::{Outcome, run};
use support::milter::PROGRAM;

/// Makes the package from the programs under test, quickly: packed badly.
fn package(dir: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("dist/make-deb"));
    command
        .arg(Path::new(PROGRAM).parent().unwrap())
        .arg(dir.join("pmx-milter.deb"))
        .env("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
        .env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    run(command, 4 * SOON).expect(0);
    dir.join("pmx-milter.deb")
}

fn dpkg_deb(arguments: &[&str], package: &Path) -> String {
    let mut command = Command::new("dpkg-deb");
    command.args(arguments).arg(package);
    run(command, SOON).expect(0).out
}

mod needs_dpkg_deb {
    use super::*;

    /// Mode, owner and path of everything in it.
    fn contents(package: &Path) -> Vec<(String, String, String)> {
        dpkg_deb(&["--contents"], package)
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                let [mode, owner, .., path] = words.as_slice() else {
                    panic!("{line}");
                };
                let path = path.trim_start_matches('.').to_owned();
                ((*mode).to_owned(), (*owner).to_owned(), path)
            })
            .collect()
    }

    #[test]
    fn everything_that_an_operator_needs_is_in_it_and_belongs_to_root() {
        let dir = tempfile::tempdir().unwrap();
        let package = package(dir.path());
        let contents = contents(&package);
        for (mode, owner, path) in &contents {
            assert_eq!(owner, "root/root", "{path}");
            assert!(
                matches!(
                    mode.as_bytes(),
                    [b'-' | b'd', _, _, _, _, b'-', _, _, b'-', _]
                ),
                "{mode} {path}"
            );
        }
        let file = |wanted: &str| contents.iter().find(|(.., path)| path == wanted);
        for path in [
            "/usr/sbin/pmx-milter",
            "/usr/sbin/pmx-init",
            "/etc/init.d/pmx-milter",
        ] {
            assert_eq!(file(path).unwrap().0, "-rwxr-xr-x", "{path}");
        }
        let mut wanted: Vec<String> = [
            "/etc/pmx/pmx.conf",
            "/etc/pmx/policy.lua",
            "/etc/logrotate.d/pmx-milter",
            "/lib/systemd/system/pmx-milter@.service",
            "/lib/systemd/system/pmx-milter.service",
            "/lib/systemd/system/pmx-milter-exporter.service",
            "/usr/share/doc/pmx-milter/examples/prometheus/pmx-milter.rules.yml",
            "/usr/share/doc/pmx-milter/examples/grafana/pmx-milter.json",
            "/usr/share/doc/pmx-milter/examples/haproxy.cfg",
            "/usr/share/doc/pmx-milter/examples/container/Containerfile",
            "/usr/share/bash-completion/completions/pmx-milter",
            "/usr/share/zsh/vendor-completions/_pmx-milter",
            "/usr/share/fish/vendor_completions.d/pmx-milter.fish",
            "/usr/share/doc/pmx-milter/copyright",
            "/var/log/pmx/",
        ]
        .map(str::to_owned)
        .into();
        let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
        for page in fs::read_dir(man).unwrap() {
            let name = page.unwrap().file_name().into_string().unwrap();
            let section = name.rsplit('.').next().unwrap();
            wanted.push(format!("/usr/share/man/man{section}/{name}.gz"));
        }
        for path in &wanted {
            assert_eq!(
                file(path).map_or("", |it| &it.0[1..]).len(),
                9,
                "{path} is missing"
            );
        }
        let conffiles = dpkg_deb(&["--info"], &package);
        assert!(conffiles.contains("conffiles"), "{conffiles}");
        let listed =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/deb/conffiles"));
        let mut listed: Vec<String> = listed.unwrap().lines().map(str::to_owned).collect();
        listed.sort();
        let mut in_etc: Vec<String> = contents
            .iter()
            .filter(|(mode, _, path)| mode.starts_with('-') && path.starts_with("/etc/"))
            .map(|(.., path)| path.clone())
            .collect();
        in_etc.sort();
        assert_eq!(
            listed, in_etc,
            "dpkg asks before it overwrites what an operator changed"
        );
        for (field, value) in [
            ("Version", env!("CARGO_PKG_VERSION")),
            ("Package", "pmx-milter"),
            ("Depends", "adduser"),
        ] {
            let mut command = Command::new("dpkg-deb");
            command.arg("--field").arg(&package).arg(field);
            assert_eq!(run(command, SOON).expect(0).out.trim(), value);
        }
    }

    #[test]
    fn the_same_sources_give_the_same_package() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, two] = dirs
            .each_ref()
            .map(|dir| fs::read(package(dir.path())).unwrap());
        assert!(one == two);
    }
}

/// What installing needs: a root of its own, which is this machine's with every change in memory.
mod needs_overlay {
    use std::net::SocketAddr;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use support::command::{Running, spawn};
    use support::mta::{Address, Message, Mta};
    use support::ports::free_port;
    use support::{process, wait_until};

    /// A root in which everything may be done; gone when dropped.
    struct Root {
        dir: tempfile::TempDir,
        /// Holds the mounts.
        keeper: Running,
    }

    impl Root {
        fn new() -> Root {
            let dir = tempfile::Builder::new()
                .prefix("pmx-root-")
                .tempdir_in("/tmp")
                .unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let script = r#"set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=755 tmpfs "$1/root/run"
# Nothing starts by itself.
printf '#!/bin/sh\nexit 101\n' >"$1/root/usr/sbin/policy-rc.d"
chmod 755 "$1/root/usr/sbin/policy-rc.d"
touch "$1/root/ready"
exec sleep infinity"#;
            let mut command = Command::new("unshare");
            command
                .args([
                    "--mount",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    script,
                    "sh",
                ])
                .arg(dir.path());
            let root = Root {
                dir,
                keeper: spawn(command),
            };
            wait_until(SOON, "the root is there", || {
                (root.shell("test -e /ready").code == 0).then_some(())
            });
            root
        }

        /// What the kernel shows of its files from outside.
        fn path(&self, name: &str) -> PathBuf {
            let root = self.dir.path().join("root");
            PathBuf::from(format!(
                "/proc/{}/root{}/{name}",
                self.keeper.pid(),
                root.display()
            ))
        }

        /// Runs a script in it, as root.
        fn shell(&self, script: &str) -> Outcome {
            let mut command = Command::new("nsenter");
            command
                .arg(format!("--target={}", self.keeper.pid()))
                .args(["--mount", "--wd=/", "chroot"])
                .arg(self.dir.path().join("root"))
                .args(["sh", "-c", script])
                .env("PMX_TEST_DIR", self.dir.path())
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env_remove("PMX_CONF");
            run(command, 4 * SOON)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            for pid in process::marked(&format!("PMX_TEST_DIR={}", self.dir.path().display())) {
                process::signal(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    #[test]
    fn from_installing_the_package_to_a_filtered_message_and_back() {
        let root = Root::new();
        let dir = tempfile::tempdir().unwrap();
        fs::copy(package(dir.path()), root.path("pmx.deb")).unwrap();
        root.shell("dpkg -i /pmx.deb").expect(0);
        root.shell("id -u pmx6").expect(0);

        // The configuration as it comes, but for the port, which may be in use here.
        root.shell("pmx-milter check --dump")
            .expect(0)
            .prints("port = \"inet:3366@127.0.0.1\"");
        let port = free_port();
        root.shell(&format!("sed -i s/3366/{port}/ /etc/pmx/pmx.conf"))
            .expect(0);
        // No systemd: a name service that asks it waits in vain, and the journal is not there.
        let init = |verb: &str| root.shell(&format!("/etc/init.d/pmx-milter {verb}"));
        init("status").expect(3).prints("policy: not running");
        init("try-restart").expect(0).prints("nothing to restart");
        init("force-reload").expect(0);
        init("status").expect(3);
        let lines = init("start").expect(0);
        assert!(
            lines
                .out
                .contains(&format!("smtpd_milters = inet:127.0.0.1:{port}")),
            "{}",
            lines.out
        );
        init("start").expect(0).prints("already running");
        init("status").expect(0).prints("policy: running");
        assert_eq!(root.shell("stat -c %U /run/pmx").out, "pmx6\n");

        let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
        let mut session = Mta::ready(&address, SOON).unwrap();
        let answer = session.message(&Message::from("a@b.example")).unwrap();
        assert!(answer.is_taken(), "{answer:?}");
        let header = answer
            .edits
            .iter()
            .any(|(code, bytes)| *code == 'h' && bytes.starts_with(b"X-Filter\0"));
        assert!(header, "{answer:?}");
        session.quit().unwrap();
        wait_until(SOON, "the message is counted", || {
            root.shell("pmx-milter status")
                .out
                .contains(" msg=1\n")
                .then_some(())
        });

        for verb in ["restart", "reload", "force-reload", "try-restart"] {
            init(verb).expect(0);
            drop(Mta::ready(&address, SOON).unwrap());
        }
        // An upgrade leaves it serving.
        root.shell("dpkg -i /pmx.deb").expect(0);
        init("status").expect(0);
        init("nonsense").expect(2).says("Usage");
        init("stop").expect(0);
        init("stop").expect(0);
        init("status").expect(3);

        root.shell("echo '# mine' >> /etc/pmx/pmx.conf; sed -i s/true/false/ /etc/pmx/pmx.conf")
            .expect(0);
        init("start").expect(6).says("no milter is enabled");
        root.shell("dpkg -r pmx-milter && test -e /etc/pmx/pmx.conf")
            .expect(0);
        init("stop").expect(0);
        init("start").expect(5);
        // As enabled by hand; who is somebody else's stays.
        root.shell(
            "mkdir -p /etc/systemd/system/multi-user.target.wants && cd /etc/systemd/system/multi-user.target.wants && \
             for unit in pmx-milter-exporter pmx-milter@policy other; do ln -s /nowhere $unit.service; done",
        )
        .expect(0);
        root.shell("dpkg -P pmx-milter").expect(0);
        root.shell("test -L /etc/systemd/system/multi-user.target.wants/other.service")
            .expect(0);
        for left in [
            "/etc/pmx",
            "/run/pmx",
            "/var/log/pmx",
            "/etc/init.d/pmx-milter",
        ] {
            root.shell(&format!("test ! -e {left}")).expect(0);
        }
        root.shell("ls /etc/systemd/system/*.wants/*pmx* /etc/rc?.d/*pmx*")
            .expect(2);
    }
}

mod needs_logrotate {
    use super::*;
    use support::milter::{ADDS_A_HEADER, Milter};
    use support::mta::Message;

    #[test]
    fn logrotate_rotates_a_log_and_every_process_goes_on_in_the_new_one() {
        let milter = Milter::new(ADDS_A_HEADER);
        let logs = milter.path("logs");
        fs::create_dir(&logs).unwrap();
        milter.configure_milters(&format!(
            "[milter.policy]\nport = \"{}\"\npolicy = \"policy.lua\"\nmessage_log = true\nlog_to = \"file:{}/policy.log\"\n",
            milter.port_setting(),
            logs.display()
        ));
        milter.start();
        let mut session = milter.session();
        session.message(&Message::from("before@b.example")).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/pmx-milter.logrotate");
        let rules = fs::read_to_string(shipped)
            .unwrap()
            .replace("/var/log/pmx", logs.to_str().unwrap())
            .replace("create 0640 pmx6 adm", "create 0640 nobody root")
            .replace(
                "pmx-milter status",
                &format!("{PROGRAM} -c {} status", milter.path("pmx.conf").display()),
            );
        milter.write("rules", &rules);
        let mut command = Command::new("/usr/sbin/logrotate");
        command
            .arg("--force")
            .arg("--state")
            .arg(milter.path("state"))
            .arg(milter.path("rules"));
        let outcome = run(command, SOON).expect(0);
        assert_eq!(outcome.err, "");
        let (old, new) = (logs.join("policy.log.1"), logs.join("policy.log"));
        support::wait_until(SOON, "a message is logged in the new file", || {
            session.message(&Message::from("after@b.example")).unwrap();
            fs::read_to_string(&new)
                .unwrap()
                .contains("after@b.example")
                .then_some(())
        });
        assert!(
            fs::read_to_string(&old)
                .unwrap()
                .contains("before@b.example")
        );
        drop(session);
        milter.stop();
        assert!(
            fs::read_to_string(&new).unwrap().contains("is stopped"),
            "the master's lines too"
        );
    }
}
