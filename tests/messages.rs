//! What an operator reads when something is wrong: each message says what was attempted, with which object, why it failed, and what to do
//! next; and the exit status tells a script the same.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};

use support::milter::{ADDS_A_HEADER, Milter};

/// One fault of a user's. In texts, `{dir}` is the test's directory, `{port}` its free port.
struct Case {
    arguments: &'static str,
    /// Replaces pmx.conf below the lines for user, log and run directory; "" keeps a good one.
    conf: &'static str,
    /// Replaces policy.lua; "" keeps a good one.
    policy: &'static str,
    code: i32,
    /// Attempt and object, reason, next step: all of it is in the message.
    says: &'static [&'static str],
}

const fn with(
    arguments: &'static str,
    conf: &'static str,
    code: i32,
    says: &'static [&'static str],
) -> Case {
    Case {
        arguments,
        conf,
        policy: "",
        code,
        says,
    }
}

const fn given(arguments: &'static str, code: i32, says: &'static [&'static str]) -> Case {
    with(arguments, "", code, says)
}

const fn policy(policy: &'static str, says: &'static [&'static str]) -> Case {
    Case {
        arguments: "start",
        conf: "",
        policy,
        code: 6,
        says,
    }
}

#[rustfmt::skip]
const ARGUMENTS: &[Case] = &[
    given("", 2, &["requires a subcommand", "start, stop, restart", "--help"]),
    given("nonsense", 2, &["'nonsense'", "unrecognized", "--help"]),
    given("strat", 2, &["'strat'", "similar subcommand", "'start'"]),
    given("start --nonsense", 2, &["'--nonsense'", "unexpected", "--help"]),
    given("exporter --listen mx:9366", 2, &["'mx:9366'", "--listen <ADDRESS>", "give ADDRESS:PORT with a numeric address"]),
    given("start ../x", 2, &["../x", "cannot be the name of a milter", "use 1 to 64"]),
    given("start -9", 2, &["'-9'", "unexpected", "--help"]),
    given("run", 2, &["<MILTER>", "not provided", "--help"]),
    given("run a b", 2, &["'b'", "unexpected", "--help"]),
    given("try", 2, &["<POLICY>", "not provided", "--help"]),
    given("try p.lua --client nobody", 2, &["--client", "'nobody'", "--help"]),
    given("stop -17", 2, &["stop: unknown signal -17", "known are", "-INT (-2)"]),
    given("stop -USR1", 2, &["stop: unknown signal -USR1", "known are", "-KILL (-9)"]),
    given("stop -9 -HUP", 2, &["stop: two signals", "-9 and -HUP", "give one"]),
    given("status --format xml", 2, &["--format", "'xml'", "openmetrics"]),
    given("status --watch 0", 2, &["--watch", "'0'", "give seconds from 0.1"]),
    given("status --watch 1 --format nagios", 3, &["--watch", "goes with", "--format text"]),
    given("status --per-slot", 2, &["--per-slot", "goes with", "--format openmetrics"]),
    given("status --long --format prometheus", 2, &["--long", "go with", "--format text"]),
    given("status -w 5", 2, &["--warning", "go with", "--format nagios"]),
    given("status --format nagios -w 5:1", 3, &["5:1", "starts above its end", "@10:20 (inside)"]),
    given("status --format nagios -w x=5", 3, &["x=5", "unknown metric", "known are requests"]),
    given("top", 2, &["top:", "is no terminal", "pmx-milter status --watch 1"]),
    given("top --interval x", 2, &["--interval", "'x'", "give seconds"]),
];

#[rustfmt::skip]
const NAMES: &[Case] = &[
    given("start no", 6, &["start no:", "no milter of this name in {dir}/pmx.conf", "it has policy"]),
    given("restart no", 6, &["restart no:", "no milter of this name", "it has policy"]),
    given("run no", 6, &["run no:", "no milter of this name", "it has policy"]),
    given("stop no", 6, &["stop no:", "no milter of this name", "it has policy"]),
    given("status no", 4, &["status no:", "no milter of this name", "it has policy"]),
    given("try no.lua", 6, &["try: cannot read", "no.lua for the policy", "write it"]),
    given("try {dir}/policy.lua no.eml", 1, &["try: cannot read the message no.eml", "No such file", "standard input"]),
];

#[rustfmt::skip]
const CONFIGURATION: &[Case] = &[
    with("start", "# nothing\n", 6, &["{dir}/pmx.conf:", "no milter is configured", "[milter.policy]"]),
    with("check", "# nothing\n", 6, &["{dir}/pmx.conf:", "no milter is configured", "policy = \"policy.lua\""]),
    with("start", "[milter.policy]\nport = \"inet:{port}@127.0.0.1\"\npolicy = \"policy.lua\"\nenabled = false\n", 6, &["start:", "no milter is enabled in {dir}/pmx.conf", "name a disabled one"]),
    with("start", "[milter.policy]\npolicy = \"policy.lua\"\n", 6, &["pmx.conf:4:9: milter policy", "has no port", "add port ="]),
    with("start", "[milter.policy]\nport = \"inet:1@h\"\n", 6, &["pmx.conf:4:9: milter policy", "has no policy", "add policy ="]),
    with("start", "[milter.policy]\nprt = 5\n", 6, &["pmx.conf:5:1: prt", "is not a key", "did you mean port?"]),
    with("start", "[mlter.policy]\n", 6, &["pmx.conf:4:2: [mlter]", "is not a table", "did you mean [milter.NAME]?"]),
    with("start", "[milter.policy\n", 6, &["pmx.conf:4:15:", "not TOML: unclosed table", "expected `]`"]),
    with("start", "port = \"inet:1@h\"\n", 6, &["pmx.conf:4:1: port", "cannot be the same for all milters", "move it into a [milter.NAME] table"]),
    with("start", "[[milter.policy]]\n", 6, &["pmx.conf:4:", "a milter is one table", "write [milter.policy] in single brackets"]),
    with("start", "[milter.\"a/b\"]\n", 6, &["pmx.conf:4:", "cannot be the name of a milter", "use 1 to 64"]),
    with("start", "[milter.policy]\nport = \"inet:3366\"\n", 6, &["pmx.conf:5:8: \"inet:3366\"", "its host is missing", "such as \"inet:3366@127.0.0.1\""]),
    with("start", "[milter.policy]\nport = \"inet:0@h\"\n", 6, &["pmx.conf:5:8: \"inet:0@h\"", "from 1 to 65535", "write inet:PORT@HOST"]),
    with("start", "callback_timeout = 8\n", 6, &["pmx.conf:4:20: callback_timeout", "found 8", "write \"8s\""]),
    with("start", "status_mode = 640\n", 6, &["pmx.conf:4:15: status_mode", "found 640", "in quotes, such as \"0640\""]),
    with("start", "message_size_limit = \"10X\"\n", 6, &["pmx.conf:4:22: message_size_limit", "found \"10X\"", "takes"]),
    with("start", "redact = \"yes\"\n", 6, &["pmx.conf:4:10: redact", "found \"yes\"", "takes"]),
    with("start", "log_level = \"loud\"\n", 6, &["pmx.conf:4:13: log_level", "found \"loud\"", "takes error, warn, info or debug"]),
    with("start", "max_pooled_procs = 99999\n", 6, &["pmx.conf:4:20: max_pooled_procs", "found 99999", "takes 0 to 4096"]),
    with("start", "[milter.policy]\nport = \"inet:{port}@127.0.0.1\"\npolicy = \"policy.lua\"\nmin_pooled_procs = 9\nmax_pooled_procs = 2\n", 6, &["milter policy: min_pooled_procs is 9", "max_pooled_procs only 2", "lower the one or raise the other"]),
    with("start", "[milter.a]\nport = \"inet:{port}@127.0.0.1\"\npolicy = \"policy.lua\"\n[milter.b]\nport = \"inet:{port}@127.0.0.1\"\npolicy = \"policy.lua\"\n", 6, &["milter b cannot listen on inet:{port}@127.0.0.1", "milter a", "choose another port"]),
    with("start", "include = [\"no/*.conf\"]\n", 6, &["pmx.conf:4:12: cannot include {dir}/no/*.conf", "No such file", "create it or remove it from include"]),
    with("restart", "[milter.policy\n", 6, &["not TOML", "restart: not done", "running milters are untouched"]),
    with("stop", "[milter.policy\n", 0, &["warning: {dir}/pmx.conf:4:15", "not TOML", "expected `]`"]),
    with("exporter --listen 192.0.2.1:0", "", 1, &["exporter: cannot listen on 192.0.2.1:0", "Cannot assign requested address", "this machine has no such address: see ip address"]),
    with("status x", "[milter.policy\n", 4, &["status x: nothing is known of it", "run_dir {dir}/run has no trace", "the configuration cannot be read"]),
];

#[rustfmt::skip]
const POLICIES: &[Case] = &[
    policy("retrun {}", &["milter policy: policy {dir}/policy.lua does not run", "policy.lua:1:", "global 'retrun'"]),
    policy("return {", &["policy {dir}/policy.lua does not run", "policy.lua:1:", "unexpected symbol near <eof>"]),
    policy("return 5", &["policy {dir}/policy.lua", "it returned integer", "must end with \"return policy\""]),
    policy("return {emo = function() end}", &["policy.lua:1: policy.emo", "is not a callback or setting", "make a helper a local function"]),
    policy("list.load(\"no.txt\") return {}", &["policy.lua:1: list.load: cannot read {dir}/no.txt", "No such file", "mend its name"]),
    policy("require \"no\" return {}", &["policy.lua:1: require: cannot read {dir}/no.lua", "No such file", "mend its name"]),
    policy("return milter.NOSUCH", &["policy.lua:1: milter", "has no \"NOSUCH\"", "stack traceback"]),
    policy("local t = string.rep(\"x\", 1 << 40)", &["policy {dir}/policy.lua", "policy.lua:1:", "in field 'rep'"]),
];

fn check(cases: &[Case]) {
    let milter = Milter::new(ADDS_A_HEADER);
    let dir = milter.path("");
    let dir = dir.display().to_string();
    let dir = dir.trim_end_matches('/');
    let filled = |text: &str| {
        text.replace("{dir}", dir)
            .replace("{port}", &milter.port.to_string())
    };
    let mut wrong = Vec::new();
    for case in cases {
        if case.conf.is_empty() {
            milter.configure("");
        } else {
            // As many lines above it for every user: the messages name lines.
            milter.configure_milters(&filled(case.conf));
            if !support::is_root() {
                let conf = fs::read_to_string(milter.path("pmx.conf")).unwrap();
                milter.write(
                    "pmx.conf",
                    &conf.replacen("log_level", "user = \"pmx6\"\nlog_level", 1),
                );
            }
            let conf = fs::read_to_string(milter.path("pmx.conf")).unwrap();
            milter.write("pmx.conf", &conf.replacen("log_level = \"debug\"\n", "", 1));
        }
        milter.write(
            "policy.lua",
            if case.policy.is_empty() {
                ADDS_A_HEADER
            } else {
                case.policy
            },
        );
        let arguments = filled(case.arguments);
        let arguments: Vec<&str> = arguments.split_ascii_whitespace().collect();
        let outcome = milter.pmx(&arguments);
        let what = format!("{arguments:?} with {:?} and {:?}", case.conf, case.policy);
        if outcome.code != case.code {
            wrong.push(format!(
                "{what}: status {}, not {}
{}",
                outcome.code, case.code, outcome.err
            ));
        }
        assert_eq!(case.says.len(), 3, "{what}: object, reason, next step");
        for part in case.says.iter().map(|part| filled(part)) {
            if !outcome.err.contains(&part) {
                wrong.push(format!("{what}\n{part:?} is missing in\n{}", outcome.err));
            }
        }
        for ours in ["panicked", "Err(", "Os {", "unwrap", "None"] {
            assert!(!outcome.err.contains(ours), "{what}\n{}", outcome.err);
        }
        assert!(milter.processes().is_empty(), "{what} leaves a process");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn wrong_arguments() {
    check(ARGUMENTS);
}

#[test]
fn names_of_what_is_not_there() {
    check(NAMES);
}

#[test]
fn a_wrong_configuration() {
    check(CONFIGURATION);
}

#[test]
fn a_wrong_policy() {
    check(POLICIES);
}

/// What is wrong with the machine: a file, a port, a directory.
#[test]
fn surroundings_in_the_way() {
    let good = |port: &str, more: &str| {
        format!("[milter.policy]\nport = \"{port}\"\npolicy = \"policy.lua\"\n{more}")
    };
    let start = |prepare: &dyn Fn(&Milter), code: i32, says: [&str; 3]| {
        let milter = Milter::new(ADDS_A_HEADER);
        prepare(&milter);
        let outcome = milter.pmx(&["start"]);
        assert_eq!(outcome.code, code, "{says:?}\n{}", outcome.err);
        for part in says {
            assert!(
                outcome.err.contains(part),
                "{part:?} is missing in\n{}",
                outcome.err
            );
        }
        assert!(milter.processes().is_empty());
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = taken.local_addr().unwrap().port();
    start(
        &|it| it.configure_milters(&good(&format!("inet:{number}@127.0.0.1"), "")),
        1,
        ["milter policy: cannot bind inet:", "in use", "held by pid"],
    );
    start(
        &|it| it.configure_milters(&good("inet:3366@192.0.2.1", "")),
        1,
        [
            "milter policy: cannot bind inet:3366@192.0.2.1",
            "no such address",
            "ip addr",
        ],
    );
    start(
        &|it| it.configure_milters(&good(&format!("unix:{}/no/s", it.path("").display()), "")),
        1,
        [
            "milter policy: cannot bind unix:",
            "does not exist",
            "create",
        ],
    );
    start(
        &|it| it.configure("status_group = \"no-such\""),
        6,
        [
            "milter policy: status_group = \"no-such\"",
            "there is no such group",
            "create it or name another",
        ],
    );
    start(
        &|it| it.configure("log_to = \"stderr\""),
        6,
        ["milter policy", "log_to", "pmx-milter run"],
    );
    let run_dir = |it: &Milter, mode: u32| {
        fs::create_dir(it.run_dir()).unwrap();
        fs::set_permissions(it.run_dir(), fs::Permissions::from_mode(mode)).unwrap();
    };
    start(
        &|it| run_dir(it, 0o777),
        1,
        ["run_dir", "mode 0777 lets others write", "chmod 0755"],
    );
    start(
        &|it| symlink("/tmp", it.run_dir()).unwrap(),
        1,
        ["run_dir", "is not a directory", "links are not followed"],
    );
}

mod needs_root {
    use super::*;

    #[test]
    fn what_root_must_not_do_and_what_its_user_may_not_read() {
        let milter = Milter::new(ADDS_A_HEADER);
        for (user, parts) in [
            (
                "root",
                ["user \"root\"", "never runs as root", "set user ="],
            ),
            (
                "no-such",
                [
                    "there is no user \"no-such\"",
                    "policies are to run",
                    "adduser --system --group no-such",
                ],
            ),
        ] {
            let conf = fs::read_to_string(milter.path("pmx.conf")).unwrap();
            milter.write(
                "pmx.conf",
                &conf.replace("\"nobody\"", &format!("\"{user}\"")),
            );
            let outcome = milter.pmx(&["start"]).expect(6);
            for part in parts {
                assert!(outcome.err.contains(part), "{}", outcome.err);
            }
            milter.configure("");
        }
        fs::set_permissions(milter.path("policy.lua"), fs::Permissions::from_mode(0o600)).unwrap();
        milter
            .pmx(&["start"])
            .expect(6)
            .says("milter policy: cannot read")
            .says("Permission denied")
            .says("let the user of the milters read it");
    }
}
