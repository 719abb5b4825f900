//! The container recipe, as far as it can be tried without a container runtime: what it copies is there and enough to build from, and the
//! program does what it says as process 1 of a pid namespace, with its probes.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::SOON;
use support::command::run;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn recipe(name: &str) -> String {
    fs::read_to_string(root().join("dist/container").join(name)).unwrap()
}

/// The recipe's instructions with their arguments, lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = recipe("Containerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter_map(|line| line.split_once(' '));
    instructions
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// The arguments of the only instruction of this name.
#[track_caller]
fn only(name: &str) -> String {
    let all = instructions();
    let mut found = all.iter().filter(|it| it.0 == name);
    let (_, argument) = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "{name} twice");
    argument.clone()
}

/// What `COPY` takes from the repository, with where it goes.
fn copies() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, argument) in instructions() {
        if name == "COPY" && !argument.starts_with("--from=") {
            let words: Vec<&str> = argument.split_ascii_whitespace().collect();
            let (to, from) = words.split_last().unwrap();
            all.extend(from.iter().map(|it| ((*it).to_owned(), (*to).to_owned())));
        }
    }
    assert!(all.len() >= 8, "{all:?}");
    all
}

#[test]
fn what_the_recipe_copies_is_there_and_what_the_program_is_built_from_is_copied() {
    let copied: Vec<String> = copies().into_iter().map(|(from, _)| from).collect();
    for from in &copied {
        assert!(root().join(from).exists(), "{from}");
    }
    // What sources and build script take from elsewhere.
    let mut files = vec![root().join("build.rs")];
    let mut folders = vec![root().join("src"), root().join("scoreboard/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    let mut seen = 0;
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|it| it == "rs"))
    {
        let text = fs::read_to_string(file).unwrap();
        for macros in ["include_str!(\"", "include_bytes!(\""] {
            for (at, _) in text.match_indices(macros) {
                let name = text[at + macros.len()..].split('"').next().unwrap();
                let path = fs::canonicalize(file.parent().unwrap().join(name)).unwrap();
                let inside = |from: &String| path.starts_with(root().join(from));
                assert!(
                    copied.iter().any(inside),
                    "{} needs {}",
                    file.display(),
                    path.display()
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 3, "{seen}");
    // The manifest names benches and members: cargo reads it in a tree of nothing but copies.
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in copies() {
        let into: PathBuf = match &*to {
            "./" => dir.path().join(&from),
            absolute if absolute.starts_with('/') => continue,
            relative => dir.path().join(relative),
        };
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(root().join(&from)).arg(into);
        run(copy, SOON).expect(0);
    }
    let mut metadata = Command::new(env!("CARGO"));
    metadata
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--no-deps",
            "--format-version=1",
        ])
        .current_dir(dir.path());
    run(metadata, SOON)
        .expect(0)
        .prints("\"name\":\"pmx-milter\"");
    let build = instructions();
    let builds = build
        .iter()
        .any(|it| it.0 == "RUN" && it.1.contains("cargo build --locked"));
    assert!(builds, "{build:?}");
}

#[test]
fn the_recipe_needs_the_toolchain_that_the_manifest_needs() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let needed = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "));
    let image = format!(
        "docker.io/library/rust:{}-slim-bookworm AS build",
        needed.unwrap().trim_matches('"')
    );
    let bases = instructions();
    let first = bases.iter().find(|it| it.0 == "FROM").unwrap();
    assert_eq!(first.1, image);
}

#[test]
fn every_command_of_the_pod_is_one_that_the_program_takes() {
    let pod = recipe("pod.yaml");
    let mut seen = 0;
    for line in pod.lines().map(str::trim) {
        let Some((key @ ("args" | "command"), list)) = line.split_once(": ") else {
            continue;
        };
        let mut words: Vec<String> = serde_json::from_str(list).unwrap();
        if key == "command" {
            // The pod's probe is the image's.
            let health = only("HEALTHCHECK");
            assert_eq!(words[..2], ["sh", "-c"]);
            assert_eq!(health.split_once("CMD ").unwrap().1, words[2]);
            let (asks, judges) = words[2].split_once("; ").unwrap();
            assert_eq!(judges, "test $? -ne 2");
            words = asks.split(' ').skip(1).map(str::to_owned).collect();
        }
        let arguments = &words[..];
        let mut command = Command::new(support::milter::PROGRAM);
        // Where a word were wrong, that would be said instead.
        command.args(arguments).arg("--help");
        let verb = &arguments[0];
        // Of a plugin, help is status 3.
        let is_plugin = arguments.iter().any(|word| word == "nagios");
        run(command, SOON)
            .expect(if is_plugin { 3 } else { 0 })
            .prints(&format!("Usage: pmx-milter {verb}"));
        seen += 1;
    }
    assert_eq!(seen, 3);
}

/// As in a container: process 1, an ordinary user.
mod needs_pid_namespaces {
    use std::net::SocketAddr;
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::signal::Signal;
    use support::command::{Outcome, Running, spawn};
    use support::http::get;
    use support::milter::PROGRAM;
    use support::mta::{Address, Message, Mta};
    use support::ports::free_port;
    use support::process::signal;
    use support::wait_until;

    use super::*;

    /// What is mounted for a container: /etc/pmx and /dev/shm.
    struct Image {
        etc: tempfile::TempDir,
        shm: tempfile::TempDir,
        port: u16,
    }

    impl Image {
        fn new() -> Image {
            let etc = tempfile::tempdir().unwrap();
            let shm = tempfile::tempdir_in("/dev/shm").unwrap();
            fs::set_permissions(etc.path(), fs::Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(shm.path(), fs::Permissions::from_mode(0o1777)).unwrap();
            let port = free_port();
            for (from, to) in copies() {
                let Some(name) = to.strip_prefix("/etc/pmx/") else {
                    continue;
                };
                let text = fs::read_to_string(root().join(from)).unwrap();
                let text = text
                    .replace("/dev/shm/", &format!("{}/", shm.path().display()))
                    .replace("inet:3366@0.0.0.0", &format!("inet:{port}@127.0.0.1"));
                fs::write(etc.path().join(name), text).unwrap();
            }
            Image { etc, shm, port }
        }

        fn command(&self, program: &str) -> Command {
            let path = format!(
                "{}:{}",
                Path::new(PROGRAM).parent().unwrap().display(),
                std::env::var("PATH").unwrap()
            );
            let mut command = Command::new(program);
            command
                .env("PATH", path)
                .env("PMX_CONF", self.etc.path().join("pmx.conf"))
                .env_remove("NOTIFY_SOCKET")
                .current_dir("/");
            command
        }

        /// ENTRYPOINT with these words, in namespaces of its own.
        fn run(&self, words: &[String]) -> Container {
            let entry: Vec<String> = serde_json::from_str(&only("ENTRYPOINT")).unwrap();
            assert_ne!(only("USER"), "root");
            let mut command = self.command("unshare");
            command
                .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
                // The image has the user; here it is one that owns nothing.
                .args([
                    "setpriv",
                    "--reuid=65534",
                    "--regid=65534",
                    "--clear-groups",
                ])
                .args(entry)
                .args(words);
            let running = spawn(command);
            let first = wait_until(SOON, "the container's first process", || {
                let list = format!("/proc/{0}/task/{0}/children", running.pid());
                fs::read_to_string(list).ok()?.trim().parse().ok()
            });
            Container { running, first }
        }

        /// HEALTHCHECK's command, inside.
        fn health(&self, container: &Container) -> Outcome {
            let check = only("HEALTHCHECK");
            let (_, command) = check.split_once("CMD ").unwrap();
            self.inside(container, command)
        }

        fn inside(&self, container: &Container, command: &str) -> Outcome {
            let mut inside = self.command("nsenter");
            inside
                .arg(format!("--target={}", container.first))
                .args(["--pid", "--mount", "sh", "-c", command]);
            run(inside, SOON)
        }

        fn address(&self) -> Address {
            Address::Tcp(SocketAddr::from(([127, 0, 0, 1], self.port)))
        }
    }

    struct Container {
        running: Running,
        /// Its process 1, as it is numbered here.
        first: i32,
    }

    #[test]
    fn the_container_is_healthy_when_the_board_says_so_and_stops_gracefully() {
        let image = Image::new();
        let words: Vec<String> = serde_json::from_str(&only("CMD")).unwrap();
        let mut container = image.run(&words);
        wait_until(SOON, "it is healthy", || {
            assert!(
                !container.running.has_ended(),
                "{}",
                container.running.said()
            );
            (image.health(&container).code == 0).then_some(())
        });
        image.health(&container).expect(0).prints("PMX OK");
        let status = fs::read_to_string(format!("/proc/{}/status", container.first)).unwrap();
        assert!(
            status.contains("Uid:\t65534\t65534\t65534\t65534"),
            "{status}"
        );
        assert!(
            status
                .lines()
                .any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
        );
        // The policy that the image has.
        let mut session = Mta::ready(&image.address(), SOON).unwrap();
        let answer = session.message(&Message::from("a@b.example")).unwrap();
        assert!(answer.is_taken() && !answer.edits.is_empty(), "{answer:?}");
        signal(container.first, Signal::SIGSTOP);
        wait_until(SOON, "it is not healthy", || {
            // 1 and nothing else: other numbers mean nothing to container runtimes.
            (image.health(&container).code == 1).then_some(())
        });
        signal(container.first, Signal::SIGCONT);
        image.health(&container).expect(0);
        // What is not known, and what only warns, is no reason to kill a container.
        for (ask, worst) in [
            ("status --format nagios nobody", 3),
            ("status --format nagios -w 1: policy", 1),
        ] {
            assert_eq!(
                image.inside(&container, &format!("pmx-milter {ask}")).code,
                worst
            );
            let judged = only("HEALTHCHECK")
                .split_once("CMD ")
                .unwrap()
                .1
                .replace("status --format nagios policy", ask);
            image.inside(&container, &judged).expect(0);
        }
        // The runtime's signal: what is in progress ends first.
        session.begin(&Message::from("a@b.example")).unwrap();
        assert_eq!(only("STOPSIGNAL"), "SIGTERM");
        signal(container.first, Signal::SIGTERM);
        wait_until(SOON, "it takes no new connections", || {
            Mta::ready(&image.address(), SOON).is_err().then_some(())
        });
        assert!(
            session
                .complete(&Message::from("a@b.example"))
                .unwrap()
                .is_taken()
        );
        session.quit().unwrap();
        container.running.wait(SOON).expect(0);
    }

    #[test]
    fn the_exporter_beside_it_reads_the_board_through_another_pid_namespace() {
        let image = Image::new();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let milter = image.run(&words("run policy"));
        let mut exporter = image.run(&words("exporter --listen 0"));
        let address: SocketAddr = wait_until(SOON, "the exporter serves", || {
            let said = exporter.running.said();
            assert!(!exporter.running.has_ended(), "{said}");
            let (_, rest) = said.split_once("serving http://")?;
            rest.split_once("/metrics\n")?.0.parse().ok()
        });
        wait_until(SOON, "it is ready", || {
            (get(address, "/readyz/policy").status == 200).then_some(())
        });
        get(address, "/healthz/policy").expect(200);
        assert!(
            get(address, "/metrics")
                .body
                .contains("pmx_up{milter=\"policy\"} 1")
        );
        signal(milter.first, Signal::SIGKILL);
        wait_until(SOON, "its end is seen", || {
            let reply = get(address, "/healthz/policy");
            (reply.status == 503).then(|| assert!(reply.body.contains("dead"), "{reply:?}"))
        });
        drop(image.shm);
    }
}
