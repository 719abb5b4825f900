//! Protocol transcripts, `tests/cases/*.case`, played through a session in memory: whole, command by command, and byte by byte.
//!
//! A case is a policy and a dialogue. Lines:
//!
//! - `# text`: a comment. `policy:` begins the policy; the indented lines after it are its text, between `local policy = {}` and `return policy`.
//!   `policy file: PATH` takes a file of the repository. `limit: BYTES` is message_size_limit. `overload: tempfail|accept|reject`.
//! - `> COMMAND`: what the MTA sends. `O version actions steps` (hexadecimal masks); `D X name=value ...`; `C host family [port address]`; `H name`;
//!   `M address words...`; `R ...`; `L name: value`; `B text`; `E [text]`; `U text`; `T N A Q K`; `raw HEX...`: bytes as they are.
//! - `< REPLY`: what must come back, all of it, before the next `>`. `O version actions steps [stage=names|...]`; `h name: value`; `i index name: value`;
//!   `m nth name: value`; `b text`; `+ address`; `2 address words`; `- address`; `e address [words]`; `q reason`; `y text`; a letter alone; `close quit`;
//!   `close broken`.
//! - `* callback ...`: the callbacks called since the last such line, abort and close included. `end`: the connection ends.
//! - `= name count ...`: every count that is not 0: started aborted in_message refused overload, accept reject tempfail discard quarantine error,
//!   session-accept session-reject session-tempfail session-error.
//!
//! In texts `\r \n \t \0 \\ \xHH` are bytes, and `*COUNT` alone is that many `x`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pmx_milter::control::rehearsal::{Deadlines, Rehearsal};
use pmx_milter::milter::frame;
use pmx_milter::policy::{Bundle, Interpreter, Limits, Lists, Outcome, check_here};
use pmx_milter::session::{Close, Mode, OverloadReply};

/// How the MTA's bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pieces {
    /// All up to the next expectation at once.
    Whole,
    /// A command at a time.
    Commands,
    /// A byte at a time.
    Bytes,
}

struct Case {
    bundle: Arc<Bundle>,
    limit: usize,
    mode: Mode,
    lines: Vec<(usize, String)>,
}

fn read_case(path: &Path) -> Case {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let mut policy = String::new();
    let mut file = None;
    let mut limit = 1 << 20;
    let mut mode = Mode::Policy;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with(char::is_whitespace) {
            policy.push_str(line);
            policy.push('\n');
        } else if let Some(path) = line.strip_prefix("policy file: ") {
            file = Some(root.join(path.trim()));
        } else if let Some(bytes) = line.strip_prefix("limit: ") {
            limit = bytes.trim().parse().unwrap();
        } else if let Some(reply) = line.strip_prefix("overload: ") {
            mode = Mode::Overload(match reply.trim() {
                "tempfail" => OverloadReply::Tempfail,
                "accept" => OverloadReply::Accept,
                "reject" => OverloadReply::Reject,
                other => panic!("{}:{}: {other}", path.display(), index + 1),
            });
        } else if !line.is_empty() && !line.starts_with('#') && line != "policy:" {
            lines.push((index + 1, line.to_owned()));
        }
    }
    let limits = Limits::default();
    let bundle = match file {
        Some(file) => check_here(&file, &limits),
        None => {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("policy.lua");
            fs::write(
                &file,
                format!("local policy = {{}}\n{policy}\nreturn policy\n"),
            )
            .unwrap();
            check_here(&file, &limits)
        }
    };
    Case {
        bundle: Arc::new(bundle.unwrap_or_else(|error| panic!("{}: {error}", path.display()))),
        limit,
        mode,
        lines,
    }
}

/// A text with its escapes.
fn unescape(text: &str) -> Vec<u8> {
    if let Some(count) = text.strip_prefix('*').and_then(|count| count.parse().ok()) {
        return vec![b'x'; count];
    }
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    bytes
}

fn hex(text: &str) -> u32 {
    u32::from_str_radix(text, 16).unwrap()
}

/// `name: value` as two strings.
fn field(text: &str) -> Vec<u8> {
    let (name, value) = text.split_once(':').unwrap();
    let value = value.strip_prefix(' ').unwrap_or(value);
    [&unescape(name)[..], b"\0", &unescape(value), b"\0"].concat()
}

/// Each word as a string.
fn strings(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split(' ') {
        bytes.extend(unescape(word));
        bytes.push(0);
    }
    bytes
}

fn put(code: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, code.as_bytes()[0], &[payload]);
    out
}

fn masks(text: &str) -> Vec<u8> {
    let mut words = text.split(' ');
    let mut payload = words
        .next()
        .unwrap()
        .parse::<u32>()
        .unwrap()
        .to_be_bytes()
        .to_vec();
    payload.extend(hex(words.next().unwrap()).to_be_bytes());
    payload.extend(hex(words.next().unwrap()).to_be_bytes());
    let lists = words.collect::<Vec<_>>().join(" ");
    for list in lists.split('|').filter(|list| !list.is_empty()) {
        let (stage, names) = list.split_once('=').unwrap();
        payload.extend(stage.parse::<u32>().unwrap().to_be_bytes());
        payload.extend(names.as_bytes());
        payload.push(0);
    }
    payload
}

fn command(text: &str) -> Vec<u8> {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    match code {
        "raw" => rest
            .split(' ')
            .map(|byte| u8::try_from(hex(byte)).unwrap())
            .collect(),
        "O" => put(code, &masks(rest)),
        "D" => {
            let (stage, macros) = rest.split_once(' ').unwrap_or((rest, ""));
            let mut payload = stage.as_bytes().to_vec();
            for pair in macros.split(' ').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap();
                payload.extend([&unescape(name)[..], b"\0", &unescape(value), b"\0"].concat());
            }
            put(code, &payload)
        }
        "C" => {
            let words: Vec<&str> = rest.split(' ').collect();
            let mut payload = [&unescape(words[0])[..], b"\0", words[1].as_bytes()].concat();
            if let [_, _, port, address] = words[..] {
                payload.extend(port.parse::<u16>().unwrap().to_be_bytes());
                payload.extend(unescape(address));
                payload.push(0);
            }
            put(code, &payload)
        }
        "M" | "R" => put(code, &strings(rest)),
        "H" | "U" => put(code, &[&unescape(rest)[..], b"\0"].concat()),
        "L" => put(code, &field(rest)),
        "T" | "N" | "A" | "Q" | "K" => put(code, b""),
        "B" | "E" => put(code, &unescape(rest)),
        _ => panic!("> {text}: not a command"),
    }
}

fn reply(text: &str) -> Vec<u8> {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    match code {
        "O" => put(code, &masks(rest)),
        "h" => put(code, &field(rest)),
        "i" | "m" => {
            let (number, rest) = rest.split_once(' ').unwrap();
            let number = number.parse::<u32>().unwrap().to_be_bytes();
            put(code, &[&number[..], &field(rest)].concat())
        }
        "+" | "-" | "q" | "y" => put(code, &[&unescape(rest)[..], b"\0"].concat()),
        "2" | "e" => match rest.split_once(' ') {
            Some((address, words)) => put(
                code,
                &[&unescape(address)[..], b"\0", &unescape(words), b"\0"].concat(),
            ),
            None => put(code, &[&unescape(rest)[..], b"\0"].concat()),
        },
        "b" | "c" | "a" | "r" | "t" | "d" | "s" | "p" => put(code, &unescape(rest)),
        _ => panic!("< {text}: not a reply"),
    }
}

/// Frames in a readable form, for failures.
fn shown(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Ok(Some((frame, used))) = frame::cut(bytes, frame::PAYLOAD_BYTES) {
        let payload = &frame.payload[..frame.payload.len().min(200)];
        text.push_str(&format!(
            "\n  {} {}",
            frame.code as char,
            payload.escape_ascii()
        ));
        bytes = &bytes[used..];
    }
    if !bytes.is_empty() {
        text.push_str(&format!("\n  and {}", bytes.escape_ascii()));
    }
    text
}

fn counts(rehearsal: &Rehearsal) -> String {
    let tally = rehearsal.tally();
    let in_message = u64::from(rehearsal.session().in_message());
    assert_eq!(
        tally.started,
        tally.processed() + tally.aborted + in_message,
        "the books do not balance: {tally:?}"
    );
    let [accept, reject, tempfail, discard, quarantine, error] = tally.verdicts;
    let [s_accept, s_reject, s_tempfail, s_error] = tally.sessions;
    let all = [
        ("started", tally.started),
        ("aborted", tally.aborted),
        ("in_message", in_message),
        ("refused", tally.recipients_refused),
        ("overload", tally.overload_answered),
        ("accept", accept),
        ("reject", reject),
        ("tempfail", tempfail),
        ("discard", discard),
        ("quarantine", quarantine),
        ("error", error),
        ("session-accept", s_accept),
        ("session-reject", s_reject),
        ("session-tempfail", s_tempfail),
        ("session-error", s_error),
    ];
    let counted = all.iter().filter(|(_, count)| *count > 0);
    counted
        .map(|(name, count)| format!("{name} {count}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn play(path: &Path, case: &Case, pieces: Pieces) {
    let calls: Rc<RefCell<Vec<String>>> = Rc::default();
    let listener = {
        let calls = Rc::clone(&calls);
        Box::new(move |what: &str, _: &Outcome| {
            let name = what.split(' ').next().unwrap().to_owned();
            calls.borrow_mut().push(name);
        })
    };
    let lists = Lists::new(&case.bundle);
    let interpreter = Interpreter::new(&case.bundle, &lists, &Limits::default(), 1).unwrap();
    let minute = Duration::from_secs(60);
    let deadlines = Deadlines {
        callback: minute,
        eom: minute,
    };
    let mut rehearsal = Rehearsal::new(interpreter, case.limit, case.mode, deadlines, listener);
    let mut pending = Vec::new();
    let mut expected = Vec::new();
    let mut close = None;
    let place = |number: usize| format!("{}:{number} ({pieces:?})", path.display());
    let settle = |rehearsal: &mut Rehearsal,
                  pending: &mut Vec<u8>,
                  expected: &mut Vec<u8>,
                  close: &mut Option<String>,
                  number: usize| {
        rehearsal.feed(&std::mem::take(pending));
        let (got, expected) = (rehearsal.take_replies(), std::mem::take(expected));
        assert!(
            got == expected,
            "before {}: expected{}\ngot{}\nclosed: {:?}",
            place(number),
            shown(&expected),
            shown(&got),
            rehearsal.closed()
        );
        let closed = match rehearsal.closed() {
            None => None,
            Some(Close::Quit) => Some("quit".to_owned()),
            Some(Close::Broken(_)) => Some("broken".to_owned()),
        };
        assert_eq!(
            closed,
            *close,
            "before {}: {:?}",
            place(number),
            rehearsal.closed()
        );
    };
    let mut answered = false;
    for (number, line) in &case.lines {
        let (kind, text) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            ">" => {
                if answered {
                    settle(
                        &mut rehearsal,
                        &mut pending,
                        &mut expected,
                        &mut close,
                        *number,
                    );
                    answered = false;
                }
                let bytes = command(text);
                match pieces {
                    Pieces::Whole => pending.extend(bytes),
                    Pieces::Commands => rehearsal.feed(&bytes),
                    Pieces::Bytes => bytes.chunks(1).for_each(|byte| rehearsal.feed(byte)),
                }
            }
            "<" => {
                answered = true;
                match text.strip_prefix("close ") {
                    Some(how) => close = Some(how.to_owned()),
                    None => expected.extend(reply(text)),
                }
            }
            "*" | "=" | "end" => {
                settle(
                    &mut rehearsal,
                    &mut pending,
                    &mut expected,
                    &mut close,
                    *number,
                );
                answered = false;
                match kind {
                    "*" => assert_eq!(
                        std::mem::take(&mut *calls.borrow_mut()).join(" "),
                        text,
                        "{}",
                        place(*number)
                    ),
                    "=" => assert_eq!(counts(&rehearsal), text, "{}", place(*number)),
                    _ => rehearsal.end(),
                }
            }
            _ => panic!("{}: what is this?", place(*number)),
        }
    }
    settle(&mut rehearsal, &mut pending, &mut expected, &mut close, 0);
    counts(&rehearsal);
}

#[test]
fn every_transcript_gives_its_replies_however_it_is_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|name| name == "case"))
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "the cases are there");
    // All of them, so that one change shows all that it breaks.
    let failed: Vec<_> = paths
        .iter()
        .filter(|path| {
            std::panic::catch_unwind(|| {
                let case = read_case(path);
                for pieces in [Pieces::Whole, Pieces::Commands, Pieces::Bytes] {
                    play(path, &case, pieces);
                }
            })
            .is_err()
        })
        .collect();
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

#[test]
fn every_example_has_a_dialogue() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases: String = fs::read_dir(root.join("tests/cases"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for entry in fs::read_dir(root.join("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".lua") {
            let line = format!("policy file: examples/{name}\n");
            assert!(cases.contains(&line), "no case plays examples/{name}");
        }
    }
}
