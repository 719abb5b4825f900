#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const FILE: &str = "/etc/pmx/pmx.conf";
const GOOD: &str = "[milter.policy]\nport = \"inet:3366@127.0.0.1\"\npolicy = \"policy.lua\"\n";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse_text(Path::new(FILE), text)
}

/// `LINE:COLUMN: MESSAGE` of every problem.
fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).expect_err("this configuration is wrong");
    problems
        .iter()
        .map(|problem| {
            let (_, line, column) = problem.place().unwrap();
            format!("{line}:{column}: {}", problem.message())
        })
        .collect()
}

/// The good milter with one more line.
fn with(line: &str) -> String {
    format!("{GOOD}{line}\n")
}

#[test]
fn a_minimal_configuration_has_the_documented_defaults() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.run_dir, Path::new("/run/pmx"));
    assert_eq!(config.user, "pmx6");
    let milter = &config.milters[0];
    assert_eq!(milter.name.to_string(), "policy");
    assert_eq!(milter.policy, Path::new("/etc/pmx/policy.lua"));
    assert!(milter.enabled && milter.sandbox && !milter.redact && !milter.message_log);
    assert!(milter.max_pooled_procs >= 2);
    assert_eq!((milter.min_pooled_procs, milter.interpreters), (1, 1));
    assert_eq!(milter.interpreter_connections, 256);
    assert_eq!(milter.interpreter_memory_limit, 256 << 20);
    assert_eq!(milter.message_size_limit, 64 << 20);
    assert_eq!(milter.callback_timeout, Duration::from_secs(8));
    assert_eq!(milter.eom_timeout, Duration::from_secs(240));
    assert_eq!(milter.timeout, Duration::from_secs(7210));
    assert_eq!(milter.mta_command_timeout, Duration::from_secs(10));
    assert_eq!(milter.mta_content_timeout, Duration::from_secs(300));
    assert_eq!((milter.socket_mode, milter.status_mode), (0o660, 0o640));
    assert_eq!(milter.concurrency_limit, None);
    assert_eq!(milter.log_to, LogTo::Journal);
    assert!(milter.warnings().is_empty(), "{:?}", milter.warnings());
}

#[test]
fn a_value_at_the_top_holds_for_all_milters_and_a_table_overrides_it() {
    let config = parse(
        "timeout = \"1h\"\npolicy = \"p.lua\"\ninterpreters = 3\n\
         [milter.a]\nport = \"unix:a.sock\"\n\
         [milter.b]\nport = \"unix:/b.sock\"\ntimeout = \"100ms\"\npolicy = \"/x/b.lua\"\nlog_to = \"file:b.log\"\n",
    )
    .unwrap();
    let (a, b) = (&config.milters[0], &config.milters[1]);
    assert_eq!(a.timeout, Duration::from_secs(3600));
    assert_eq!(b.timeout, Duration::from_millis(100));
    assert_eq!(a.policy, Path::new("/etc/pmx/p.lua"));
    assert_eq!(b.policy, Path::new("/x/b.lua"));
    assert_eq!(a.port, Port::Unix(PathBuf::from("/etc/pmx/a.sock")));
    assert_eq!(b.port, Port::Unix(PathBuf::from("/b.sock")));
    assert_eq!(b.log_to, LogTo::File(PathBuf::from("/etc/pmx/b.log")));
    assert_eq!((a.interpreters, b.interpreters), (3, 3));
}

#[test]
fn every_problem_is_told_in_one_run_with_its_place_its_line_and_a_caret() {
    let text = "run_dri = \"/x\"\n\
                [milter.policy]\n\
                port = \"inet:0@h\"\n\
                timeout = 5\n\
                interpreters = \"two\"\n\
                [milter.-x]\n\
                [milter.b]\n\
                policy = 5\n";
    let found = problems(text);
    let starts = [
        "1:1: run_dri is not a key",
        "2:9: milter policy has no policy",
        "3:8: \"inet:0@h\" is not a port",
        "4:11: timeout takes 10ms to 365d, found 5",
        "5:16: interpreters takes 1 to 256, found \"two\"",
        "6:9: \"-x\" cannot be the name",
        "7:9: milter b has no port",
        "8:10: policy takes a path, found 5",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\n{start}");
    }
    assert!(
        found[0].ends_with("; did you mean run_dir?"),
        "{}",
        found[0]
    );
    let printed = parse(text).unwrap_err().to_string();
    assert!(
        printed.starts_with("/etc/pmx/pmx.conf:1:1: run_dri is not a key of pmx.conf; did you mean run_dir?\n    run_dri = \"/x\"\n    ^^^^^^^\n"),
        "{printed}"
    );
    assert!(
        printed.contains("\n    timeout = 5\n              ^"),
        "{printed}"
    );
}

#[test]
fn what_is_not_toml_is_told_beside_all_other_problems_and_only_once() {
    let found = problems("user = \"a\nlog_levle = \"info\"\n[milter.a\nport = \"unix:/a\"\n");
    assert!(found[0].starts_with("1:"), "{found:#?}");
    assert!(
        found.iter().any(|line| line
            .starts_with("2:1: log_levle is not a key of pmx.conf; did you mean log_level?")),
        "{found:#?}"
    );
    assert!(
        !found.iter().any(|line| line.contains("has no p")),
        "{found:#?}"
    );
    let twice = problems(&with("policy = \"q.lua\""));
    assert_eq!(twice, ["4:1: this is set twice; remove one of the two"]);
    let twice = problems(&format!("{GOOD}{GOOD}"));
    assert!(twice[0].starts_with("4:9: this is set twice"), "{twice:#?}");
}

#[test]
fn wrong_values_say_what_the_key_takes_and_how_to_write_it() {
    for (line, expected) in [
        ("timeout = 30", "if you mean seconds, write \"30s\""),
        (
            "timeout = \"30\"",
            "a duration is a whole number and ms, s, m, h or d",
        ),
        ("timeout = \"30 parsecs\"", "found \"30 parsecs\""),
        ("timeout = 1979-05-27", "found a date"),
        ("graceful_timeout = 0", "write \"0s\""),
        ("interpreters = 1.5", "found a number with a fraction"),
        ("interpreters = 257", "takes 1 to 256, found 257"),
        ("interpreters = -1", "takes 1 to 256, found -1"),
        (
            "interpreters = 99999999999999999999999999999999999999999999",
            "too many digits",
        ),
        ("pooled_proc_connect_limit = -1", "or 0 for never"),
        (
            "pooled_proc_age_limit = \"1ms\"",
            "takes 100ms to 365d, or 0 for never",
        ),
        (
            "message_size_limit = \"1X\"",
            "a size is a whole number and K, M, G or T",
        ),
        ("message_size_limit = \"3G\"", "takes 1K to 2G"),
        ("socket_mode = 660", "in quotes, such as \"0640\""),
        ("socket_mode = \"0999\"", "an octal mode"),
        ("status_mode = \"0666\"", "lets others write the scoreboard"),
        (
            "enabled = \"true\"",
            "takes true or false, found \"true\"; without quotes",
        ),
        ("enabled = 1", "takes true or false"),
        (
            "log_level = \"inf\"",
            "error, warn, info or debug, found \"inf\"; did you mean info?",
        ),
        ("log_to = \"/var/log/x\"", "write \"file:/var/log/x\""),
        ("log_to = \"jurnal\"", "did you mean journal?"),
        ("log_to = \"file:\"", "file:PATH"),
        ("mta_timeouts = \"10s\"", "such as \"10s,300s\""),
        ("mta_timeouts = \"0s,1s\"", "such as \"10s,300s\""),
        ("concurrency_limit = 0", "takes 1 to"),
        (
            "concurrency_limit_action = \"drop\"",
            "wait, tempfail, accept or reject",
        ),
        ("socket_owner = \"a b\"", "no account can be called so"),
        ("socket_owner = \"\"", "takes a name"),
        (
            "user = \"x\"",
            "user holds for the whole program: move it to the top",
        ),
        ("include = \"x\"", "include holds for the whole program"),
        (
            "min_pooled_procs = 9\nmax_pooled_procs = 3",
            "min_pooled_procs is 9, max_pooled_procs only 3",
        ),
        (
            "min_pooled_procs = 2\nmax_pooled_procs = 0",
            "max_pooled_procs = 0 disables the pool",
        ),
        (
            "preload_interpreters = 3\ninterpreters = 2",
            "preload_interpreters is 3, interpreters only 2",
        ),
    ] {
        let found = problems(&with(line));
        assert_eq!(found.len(), 1, "{line}: {found:#?}");
        assert!(found[0].contains(expected), "{line}: {}", found[0]);
    }
    let long = "x".repeat(200);
    for (text, expected) in [
        (String::new(), "no milter is configured"),
        ("milter = 3".to_owned(), "milter is not a value"),
        (
            "port = \"unix:/x\"".to_owned(),
            "move it into a [milter.NAME] table",
        ),
        (
            "[policy]\nport = \"unix:/x\"".to_owned(),
            "for a milter of this name write [milter.policy]",
        ),
        ("[milters.a]".to_owned(), "did you mean [milter.NAME]?"),
        ("[[milter.a]]".to_owned(), "single brackets"),
        (
            "milter.port = \"x\"".to_owned(),
            "port belongs into the table of one milter",
        ),
        (
            format!("[milter.a]\npolicy = \"p\"\nport = \"unix:{long}\""),
            "1 to 107 bytes",
        ),
        ("user = \"\\u0000\"".to_owned(), "remove the \\u0000"),
    ] {
        let printed = parse(&text).unwrap_err().to_string();
        assert!(printed.contains(expected), "{text}: {printed}");
    }
}

#[test]
fn plain_numbers_zero_and_octal_numbers_are_taken_where_they_make_sense() {
    let lines = "pooled_proc_age_limit = 0\npooled_proc_rss_limit = 1048576\nmessage_size_limit = 65536\nsocket_mode = 0o600\npooled_proc_message_limit = 1_000\nmax_pooled_procs = 0\n";
    let milter = parse(&with(lines)).unwrap().milters.remove(0);
    assert!(milter.pooled_proc_age_limit.is_zero());
    assert_eq!(milter.pooled_proc_rss_limit, 1 << 20);
    assert_eq!(milter.message_size_limit, 65_536);
    assert_eq!(milter.socket_mode, 0o600);
    assert_eq!(milter.pooled_proc_message_limit, 1000);
    assert!(milter.without_pool() && milter.interpreters >= 1);
}

#[test]
fn a_default_makes_room_for_the_value_that_it_must_not_contradict() {
    let milter = parse(&with("min_pooled_procs = 4000\npreload_interpreters = 200"))
        .unwrap()
        .milters
        .remove(0);
    assert_eq!((milter.max_pooled_procs, milter.interpreters), (4000, 200));
}

#[test]
fn two_enabled_milters_cannot_share_a_port_and_a_disabled_one_may() {
    let two = |first: &str, second: &str, enabled: bool| {
        parse(&format!(
            "policy = \"p\"\n[milter.a]\nport = \"{first}\"\n[milter.b]\nport = \"{second}\"\nenabled = {enabled}\n"
        ))
    };
    for (first, second) in [
        ("inet:1@h", "inet:1@H"),
        ("inet:1@0.0.0.0", "inet:1@h"),
        ("unix:x", "local:/etc/pmx/./x"),
    ] {
        let error = two(first, second, true).unwrap_err().to_string();
        assert!(
            error.starts_with("/etc/pmx/pmx.conf:5:8: milter b cannot listen on"),
            "{error}"
        );
        assert!(error.contains("milter a (/etc/pmx/pmx.conf:3)"), "{error}");
        assert!(two(first, second, false).is_ok());
    }
    assert!(two("inet:1@h", "inet:2@h", true).is_ok());
    assert!(two("inet:1@h", "inet6:1@h", true).is_ok());
}

#[test]
fn included_files_hold_milters_whose_paths_are_relative_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("pmx.conf");
    let sub = dir.path().join("pmx.d");
    fs::create_dir(&sub).unwrap();
    fs::write(
        &main,
        format!("include = [\"pmx.d/*.conf\", \"pmx.d/a.conf\"]\ntimeout = \"9s\"\n{GOOD}"),
    )
    .unwrap();
    fs::write(
        sub.join("b.conf"),
        "[milter.b]\nport = \"unix:b\"\npolicy = \"b.lua\"\n",
    )
    .unwrap();
    fs::write(
        sub.join("a.conf"),
        "[milter.a]\nport = \"unix:a\"\npolicy = \"a.lua\"\n",
    )
    .unwrap();
    let config = Config::load(&main).unwrap();
    let names: Vec<String> = config
        .milters
        .iter()
        .map(|milter| milter.name.to_string())
        .collect();
    assert_eq!(names, ["policy", "a", "b"]);
    let a = config.milter(&"a".parse().unwrap()).unwrap();
    assert_eq!(a.policy, sub.join("a.lua"));
    assert_eq!(a.timeout, Duration::from_secs(9));

    fs::write(
        sub.join("c.conf"),
        "timeout = \"1s\"\n[milter.a]\nport = \"unix:c\"\npolicy = \"c\"\nuser = \"x\"\n",
    )
    .unwrap();
    fs::write(sub.join("d.conf"), b"# \xff\n").unwrap();
    let error = Config::load(&main).unwrap_err().to_string();
    for expected in [
        "pmx.d/c.conf:1:1: an included file holds [milter.NAME] tables only: move timeout",
        "pmx.d/c.conf:2:9: milter a stands in",
        "pmx.d/a.conf:1 already",
        "pmx.d/d.conf:1:3: this is not UTF-8",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    fs::write(&main, "include = [\"nowhere/*.conf\", 5, \"none.conf\"]\n").unwrap();
    let error = Config::load(&main).unwrap_err();
    assert_eq!(error.iter().count(), 4, "{error}");
}

#[test]
fn a_file_that_cannot_be_read_says_how_it_was_chosen_and_what_to_write() {
    let error = Config::load(Path::new("/nonexistent/pmx.conf"))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot read the configuration /nonexistent/pmx.conf: there is no such file (-c names it)"), "{error}");
    assert!(error.contains("[milter.policy]\n"), "{error}");
    let error = Config::load(Path::new("/")).unwrap_err().to_string();
    assert!(error.contains("it is a directory"), "{error}");
    assert!(
        Config::load(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("larger than 1 MiB")
    );
    assert_eq!(choose(Some(Path::new("x"))), Path::new("x"));
}

#[test]
fn the_run_directory_is_found_in_a_broken_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pmx.conf");
    fs::write(
        &file,
        "nonsense here\nrun_dir = \"run\"\n[milter.x\nport = ",
    )
    .unwrap();
    assert_eq!(run_dir_of(&file), Some(dir.path().join("run")));
    fs::write(&file, "user = \"x\"").unwrap();
    assert_eq!(run_dir_of(&file), None);
    assert_eq!(run_dir_of(&dir.path().join("missing")), None);
}

#[test]
fn a_dump_reads_back_as_the_same_configuration() {
    let everything = "run_dir = \"r\\\"\\u0009n\"\nuser = \"u\"\n[milter.\"a.b\"]\nport = \"inet6:7@::1\"\npolicy = \"p q.lua\"\nenabled = false\nmax_pooled_procs = 3\nmin_pooled_procs = 2\npooled_proc_idle_limit = \"1500ms\"\npooled_proc_connect_limit = 7\npooled_proc_message_limit = 8\npooled_proc_age_limit = \"1d\"\npooled_proc_rss_limit = \"100M\"\ninterpreters = 4\ninterpreter_connections = 5\npreload_interpreters = 3\nreinit_limit = 9\ninterpreter_memory_limit = \"65M\"\ncallback_timeout = \"7s\"\neom_timeout = \"61s\"\nmessage_size_limit = 1025\nsocket_mode = \"0600\"\nsocket_owner = \"o\"\nsocket_group = \"g\"\nstatus_mode = \"0644\"\nstatus_group = \"s\"\nredact = true\nsandbox = false\nmta_timeouts = \"11s, 5m\"\nconcurrency_limit = 12\nconcurrency_limit_action = \"reject\"\nlisten_queue_size = 13\ntimeout = \"14s\"\ngraceful_timeout = \"15s\"\nstart_timeout = \"16s\"\numask = \"0077\"\nlog_to = \"file:l.log\"\nlog_level = \"debug\"\nlog_utc = true\nmessage_log = true\n";
    let given = everything
        .lines()
        .filter(|line| line.contains(" = "))
        .count();
    assert_eq!(
        given,
        KEYS.len() - 1,
        "every key but include stands in the text of this test"
    );
    let mut texts = vec![
        GOOD.to_owned(),
        everything.to_owned(),
        format!("{everything}{GOOD}"),
    ];
    for (key, words) in [
        ("log_level", vec!["error", "warn", "info", "debug"]),
        ("log_to", vec!["journal", "syslog", "stderr"]),
        (
            "concurrency_limit_action",
            vec!["wait", "tempfail", "accept", "reject"],
        ),
    ] {
        texts.extend(
            words
                .iter()
                .map(|word| with(&format!("{key} = \"{word}\""))),
        );
    }
    for text in texts {
        let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let dumped = dump(&config);
        let again = parse(&dumped).unwrap_or_else(|problems| panic!("{problems}\n{dumped}"));
        assert_eq!(again, config, "{dumped}");
        assert_eq!(dump(&again), dumped);
    }
}

#[test]
fn every_default_of_the_table_is_a_value_that_its_key_takes() {
    for key in KEYS {
        let KeyDefault::Value(default) = key.default else {
            continue;
        };
        let plain = matches!(default, "true" | "false")
            || (!default.starts_with('0') && default.parse::<u64>().is_ok())
            || default == "0";
        let line = if plain {
            format!("{} = {default}", key.name)
        } else {
            format!("{} = \"{default}\"", key.name)
        };
        let text = if key.place == Place::Global {
            format!("{line}\n{GOOD}")
        } else {
            with(&line)
        };
        let explicit = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(explicit, parse(GOOD).unwrap(), "{line}");
        assert!(!key.values().is_empty() && !key.meaning.is_empty());
    }
}

#[test]
fn what_is_allowed_but_unwise_gets_a_warning() {
    for (line, expected) in [
        ("callback_timeout = \"20s\"", "the MTA gives up after 10s"),
        ("message_size_limit = \"1G\"", "runs out of memory"),
        ("concurrency_limit = 9000000", "the pool carries only"),
        (
            "max_pooled_procs = 0\nconcurrency_limit_action = \"reject\"",
            "has no effect",
        ),
    ] {
        let warnings = parse(&with(line)).unwrap().warnings();
        assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
        assert!(warnings[0].contains(expected), "{}", warnings[0]);
    }
    let open = GOOD.replace("127.0.0.1", "0.0.0.0");
    assert!(parse(&open).unwrap().warnings()[0].contains("no authentication"));
}

/// A generator that is the same in every run (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn no_text_makes_the_reader_panic() {
    let seeds = [
        GOOD.to_owned(),
        dump(&parse(GOOD).unwrap()),
        "include = [\"/nowhere/*\"]\na.b.c = {d = [1, 2.5, 1979-05-27, {e = \"\"\"x\n\"\"\"}]}\n[[milter.a]]\n[[milter.a]]\n[milter.a.b]\n[milter]\nä = 'ö'\t# ü\r\n".to_owned(),
    ];
    let pieces = [
        "[",
        "]",
        "[[",
        "]]",
        "=",
        ".",
        ",",
        "{",
        "}",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\n",
        "\r",
        "\\",
        "\\u",
        "#",
        "milter",
        "milter.a",
        "[milter.a]\n",
        "[[milter]]\n",
        "a.b=1\n",
        "port",
        "include",
        "0o",
        "-",
        "99999999999999999999",
        "\u{feff}",
        "\u{2028}",
        "ä",
        "\0",
        "\t",
        "1e400",
        "nan",
        "true",
    ];
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for round in 0..3000 {
        let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..=dice.below(8) {
            let at = dice.below(text.len() + 1);
            let end = (at + dice.below(12)).min(text.len());
            match dice.below(4) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, pieces[dice.below(pieces.len())].chars())),
                2 => {
                    let copy: Vec<char> = text[at..end].to_vec();
                    let to = dice.below(text.len() + 1);
                    text.splice(to..to, copy);
                }
                _ => text.truncate(at.max(20).min(text.len())),
            }
        }
        let text: String = text.into_iter().collect();
        match parse(&text) {
            Ok(config) => assert!(!dump(&config).is_empty()),
            Err(problems) => assert!(!problems.to_string().is_empty()),
        }
    }
    for deep in ["[", "{a=", "a.", "[[", "\"\"\"", "[milter.a]\n", "x\n"] {
        let printed = parse(&deep.repeat(20_000)).unwrap_err().to_string();
        assert!(printed.len() < 200_000, "{deep}: {}", printed.len());
    }
}

#[test]
fn a_file_that_is_not_ours_gets_the_first_problems_and_the_number_of_the_others() {
    let text: String = (0..50_000)
        .map(|number| format!("unknown{number} = 1\n"))
        .collect();
    let printed = parse(&text).unwrap_err().to_string();
    assert!(printed.len() < 20_000, "{}", printed.len());
    // And that no milter is configured.
    assert!(
        printed.ends_with("and 49901 more"),
        "{}",
        &printed[printed.len() - 40..]
    );
}
