//! `pmx-milter try POLICY [FILE.eml...]`: what a policy does with messages, without an MTA.
//!
//! The messages go through the same session and the same Lua as in a child; each callback's verdict is printed, then the message as it comes
//! out. Files are opened before privileges are dropped: the operator may read what the policy's user may not. The policy runs in a forked,
//! unprivileged process when we are root.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::rehearsal::{Deadlines, Rehearsal};
use crate::client::{Address, Answer, Applied, At, Client, Letter, Offer, Reply};
use crate::policy::{Bundle, Interpreter, Limits, Lists, Outcome, Verdict};
use crate::session::Mode;
use crate::sys::process::{self, Ended, Forked};
use crate::sys::user::{self, Account};

/// The largest message that is read.
const MOST_BYTES: u64 = 256 << 20;
/// Bytes of a body that are printed.
const SHOWN_BYTES: usize = 64 << 10;

/// What `try` is asked to do. What is `None` comes from the message, or is an example.
#[derive(Clone, Debug)]
pub struct Options {
    /// Message files; none: one message from standard input.
    pub files: Vec<PathBuf>,
    /// Envelope sender, with or without brackets; "" or "<>" is the null sender. `None`: the address in `From:`.
    pub sender: Option<String>,
    /// Envelope recipients. Empty: the addresses in `To:`.
    pub recipients: Vec<String>,
    /// HELO name. `None`: client.example.org.
    pub helo: Option<String>,
    /// Address of the SMTP client. `None`: 192.0.2.1.
    pub client: Option<IpAddr>,
    /// Its host name. `None`: its address in brackets, as an MTA tells it for a client without a name.
    pub host: Option<String>,
    /// Limits of the interpreter.
    pub limits: Limits,
    /// Time for body callbacks and end of message.
    pub eom_timeout: Duration,
    /// Bytes of headers and body kept.
    pub message_size_limit: usize,
}

impl Default for Options {
    /// The defaults of `pmx.conf` and an example client.
    fn default() -> Options {
        Options {
            files: Vec::new(),
            sender: None,
            recipients: Vec::new(),
            helo: None,
            client: None,
            host: None,
            limits: Limits::default(),
            eom_timeout: Duration::from_secs(240),
            message_size_limit: 64 << 20,
        }
    }
}

/// Runs a checked policy over messages and prints to standard output. The exit status: 0, 1 when a callback failed or a message could not
/// be read. Forks when `account` is given and we are root, so the process must have one thread.
pub fn run(bundle: &Bundle, options: &Options, account: Option<&Account>) -> i32 {
    let mut sources: Vec<(String, Box<dyn Read>)> = Vec::new();
    for path in &options.files {
        match open(path) {
            Ok(file) => sources.push((path.display().to_string(), Box::new(file))),
            Err(error) => {
                eprintln!(
                    "pmx-milter: try: cannot read the message {}: {error}; give files with a message each, or none for the standard input",
                    path.display()
                );
                return 1;
            }
        }
    }
    if sources.is_empty() {
        sources.push(("standard input".to_owned(), Box::new(io::stdin())));
    }
    let account = account.filter(|_| user::effective_uid() == 0);
    let Some(account) = account else {
        return play_all(bundle, options, sources, &mut io::stdout());
    };
    match process::fork_single_threaded() {
        Err(error) => {
            eprintln!("pmx-milter: cannot start a process for the policy: {error}");
            1
        }
        Ok(Forked::Parent(child)) => {
            drop(sources);
            match process::wait_for(child) {
                Some(Ended::Exited(status)) => status,
                ended => {
                    eprintln!("pmx-milter: the process with the policy died: {ended:?}");
                    1
                }
            }
        }
        Ok(Forked::Child) => {
            if let Err(error) = user::become_account(account) {
                eprintln!(
                    "pmx-milter: cannot run the policy as user {}: {error}",
                    account.name
                );
                process::exit_now(1);
            }
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                play_all(bundle, options, sources, &mut io::stdout())
            }));
            process::exit_now(played.unwrap_or(1))
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

fn play_all(
    bundle: &Bundle,
    options: &Options,
    sources: Vec<(String, Box<dyn Read>)>,
    out: &mut dyn Write,
) -> i32 {
    let bundle = Arc::new(bundle.clone());
    let lists = Lists::new(&bundle);
    let many = sources.len() > 1;
    let mut status = 0;
    for (index, (name, source)) in sources.into_iter().enumerate() {
        if many {
            let gap = if index == 0 { "" } else { "\n" };
            // Output that nobody reads any more ends the run.
            if writeln!(out, "{gap}==> {name} <==").is_err() {
                return 1;
            }
        }
        let mut text = Vec::new();
        let read = source.take(MOST_BYTES + 1).read_to_end(&mut text);
        let result = match read {
            Err(error) => Err(error),
            Ok(_) if text.len() as u64 > MOST_BYTES => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is larger than 256 MiB",
            )),
            Ok(_) => play(&bundle, &lists, options, &letter(&text, options), out),
        };
        match result {
            Ok(0) => {}
            Ok(_) => status = 1,
            Err(error) => {
                eprintln!("pmx-milter: {name}: {error}");
                status = 1;
            }
        }
    }
    status
}

/// Plays one message; gives the number of callbacks that failed.
fn play(
    bundle: &Arc<Bundle>,
    lists: &Lists,
    options: &Options,
    letter: &Letter,
    out: &mut dyn Write,
) -> io::Result<u64> {
    let interpreter = Interpreter::new(bundle, lists, &options.limits, seed())
        .map_err(|error| io::Error::other(error.to_string()))?;
    let deadlines = Deadlines {
        callback: options.limits.callback_timeout,
        eom: options.eom_timeout,
    };
    let told = std::rc::Rc::new(std::cell::RefCell::new((Vec::new(), 0)));
    let listener = {
        let told = std::rc::Rc::clone(&told);
        Box::new(move |what: &str, outcome: &Outcome| {
            let mut told = told.borrow_mut();
            told.1 += u64::from(outcome.is_err());
            told.0.push(verdict_line(what, outcome));
        })
    };
    let say = |out: &mut dyn Write| -> io::Result<()> {
        for line in told.borrow_mut().0.drain(..) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    };
    let rehearsal = Rehearsal::new(
        interpreter,
        options.message_size_limit,
        Mode::Policy,
        deadlines,
        listener,
    );
    let mut client = Client::new(rehearsal);
    client.negotiate(Offer::default())?;
    let ip = options.client.unwrap_or(IpAddr::from([192, 0, 2, 1]));
    let host = options.host.clone().unwrap_or_else(|| format!("[{ip}]"));
    let helo = options.helo.as_deref().unwrap_or("client.example.org");
    let address = Address::Inet(SocketAddr::new(ip, 40_000));
    let refused = client.hello(host.as_bytes(), &address, helo.as_bytes())?;
    say(out)?;
    let answer = match refused {
        Some(answer) => answer,
        None => client.message(letter)?,
    };
    client.quit()?;
    say(out)?;
    print_answer(&answer, letter, out)?;
    out.flush()?;
    let faults = told.borrow().1;
    Ok(faults)
}

/// For `math.random` of the policy: different in each run.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

fn verdict_line(what: &str, outcome: &Outcome) -> String {
    match outcome {
        Ok(Verdict::Reply(text)) => {
            let mut bytes = Vec::new();
            text.encode(&mut bytes);
            format!("{what}: {}", reply_text(bytes.trim_ascii_end()))
        }
        Ok(verdict) => format!("{what}: {}", verdict.name()),
        Err(fault) => format!("{what}: error: {}", fault.text.replace('\n', "\n    ")),
    }
}

/// A reply as the SMTP client sees it.
fn reply_text(wire: &[u8]) -> String {
    let text = String::from_utf8_lossy(wire);
    text.trim_end_matches('\0')
        .replace("%%", "%")
        .replace("\r\n", " / ")
}

fn print_answer(answer: &Answer, letter: &Letter, out: &mut dyn Write) -> io::Result<()> {
    let what = if matches!(answer.at, At::Connect | At::Helo) {
        "client"
    } else {
        "message"
    };
    match &answer.reply {
        Reply::Text(text) => return writeln!(out, "{what}: refused: {}", reply_text(text)),
        Reply::Reject => return writeln!(out, "{what}: refused with the MTA's 5xx text"),
        Reply::Tempfail => return writeln!(out, "{what}: refused with the MTA's 4xx text"),
        Reply::Discard => return writeln!(out, "{what}: discarded (the client sees 250)"),
        _ => {}
    }
    if what == "client" {
        return writeln!(out, "client: accepted, its messages are not filtered");
    }
    let applied = answer.apply(letter);
    if let Some(reason) = &applied.quarantine {
        let reason = String::from_utf8_lossy(reason);
        writeln!(out, "message: accepted, in quarantine: {reason}")?;
    } else if answer.changes.is_empty() {
        return writeln!(out, "message: accepted, unchanged");
    } else {
        writeln!(out, "message: accepted, changed")?;
    }
    print_message(&applied, out)
}

fn print_message(applied: &Applied, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    writeln!(
        out,
        "envelope from {}",
        String::from_utf8_lossy(&applied.sender)
    )?;
    for recipient in &applied.recipients {
        writeln!(out, "envelope to {}", String::from_utf8_lossy(recipient))?;
    }
    writeln!(out)?;
    for (name, value) in &applied.headers {
        out.write_all(&[name, &b": "[..], value, b"\n"].concat())?;
    }
    writeln!(out)?;
    let shown = applied.body.len().min(SHOWN_BYTES);
    for line in applied.body[..shown].split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => out.write_all(&[line, b"\n"].concat())?,
            None => out.write_all(line)?,
        }
    }
    if shown < applied.body.len() {
        writeln!(out, "\n[{} bytes more]", applied.body.len() - shown)?;
    }
    Ok(())
}

/// A message file as a letter: header fields, body with CR LF, envelope from the options or the header.
fn letter(text: &[u8], options: &Options) -> Letter {
    let text = match text.strip_prefix(b"From ") {
        // An mbox line before the message.
        Some(rest) => rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(&b""[..], |end| &rest[end + 1..]),
        None => text,
    };
    let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
        if bare.is_empty() {
            rest = after;
            break;
        }
        match (bare.first(), headers.last_mut()) {
            (Some(b' ' | b'\t'), Some((_, value))) => {
                value.push(b'\n');
                value.extend_from_slice(bare);
            }
            _ => match bare.iter().position(|byte| *byte == b':') {
                Some(colon) => {
                    let value = &bare[colon + 1..];
                    let value = value.strip_prefix(b" ").unwrap_or(value);
                    headers.push((bare[..colon].trim_ascii_end().to_vec(), value.to_vec()));
                }
                // What is no header is body already.
                None => break,
            },
        }
        rest = after;
    }
    let first = |name: &str| {
        headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| addresses(value))
            .unwrap_or_default()
    };
    let bracketed = |address: &str| {
        let bare = address.trim().trim_start_matches('<').trim_end_matches('>');
        format!("<{bare}>").into_bytes()
    };
    let sender = match &options.sender {
        Some(sender) => bracketed(sender),
        None => first("From").into_iter().next().map_or_else(
            || b"<sender@example.org>".to_vec(),
            |found| bracketed(&found),
        ),
    };
    let mut recipients: Vec<Vec<u8>> = options
        .recipients
        .iter()
        .map(|address| bracketed(address))
        .collect();
    if recipients.is_empty() {
        recipients = first("To").iter().map(|found| bracketed(found)).collect();
    }
    if recipients.is_empty() {
        recipients.push(b"<recipient@example.org>".to_vec());
    }
    Letter {
        sender,
        sender_args: Vec::new(),
        recipients,
        headers,
        body: with_crlf(rest),
        queue_id: b"TRY0000001".to_vec(),
    }
}

/// Addresses of a header value, without display names. Groups and comments are beyond what an example needs.
fn addresses(value: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(value);
    let mut found = Vec::new();
    let mut quoted = false;
    let mut part = String::new();
    for character in text.chars().chain([',']) {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                let address = match (part.rfind('<'), part.rfind('>')) {
                    (Some(start), Some(end)) if start < end => &part[start + 1..end],
                    _ => part.trim(),
                };
                if address.contains('@') && !address.contains(char::is_whitespace) {
                    found.push(address.to_owned());
                }
                part.clear();
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    found
}

/// Body lines as SMTP has them.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + text.len() / 32);
    let mut before = 0;
    for byte in text {
        if *byte == b'\n' && before != b'\r' {
            body.push(b'\r');
        }
        body.push(*byte);
        before = *byte;
    }
    body
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::check_here;

    fn tried(policy: &str, message: &str) -> (String, i32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.lua");
        let policy = format!("local policy = {{}}\n{policy}\nreturn policy\n");
        std::fs::write(&path, policy).unwrap();
        let options = Options::default();
        let bundle = check_here(&path, &options.limits).unwrap();
        let source: Box<dyn Read> = Box::new(io::Cursor::new(message.as_bytes().to_vec()));
        let mut out = Vec::new();
        let status = play_all(&bundle, &options, vec![("m".to_owned(), source)], &mut out);
        (String::from_utf8(out).unwrap(), status)
    }

    const MESSAGE: &str = "From: \"A, B\" <a@example.org>\nTo: bad@example.org, U <u@example.org>\nSubject: a\n b\n\nhi\n";

    #[test]
    fn each_verdict_and_the_changed_message_are_printed() {
        let (out, status) = tried(
            r#"function policy.connect() end
            function policy.rcpt(ctx, recipient)
              if recipient == "bad@example.org" then return ctx:reply("550", "5.1.1", "no such user") end
            end
            function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end"#,
            MESSAGE,
        );
        assert_eq!(
            out,
            "connect: continue\n\
             rcpt bad@example.org: 550 5.1.1 no such user\n\
             rcpt u@example.org: continue\n\
             eom: continue\n\
             message: accepted, changed\n\
             \n\
             envelope from <a@example.org>\n\
             envelope to <u@example.org>\n\
             \n\
             From: \"A, B\" <a@example.org>\n\
             To: bad@example.org, U <u@example.org>\n\
             Subject: a\n b\n\
             X-Filter: ok\n\
             \n\
             hi\n"
        );
        assert_eq!(status, 0);
    }

    #[test]
    fn a_failing_callback_shows_its_line_and_fails_the_run() {
        let (out, status) = tried("function policy.eom(ctx) ctx.nothing() end", MESSAGE);
        assert!(out.contains("eom: error: policy.lua:2:"), "{out}");
        assert!(
            out.contains("message: refused with the MTA's 4xx text"),
            "{out}"
        );
        assert_eq!(status, 1);
    }

    #[test]
    fn a_refused_client_ends_the_dialogue() {
        let (out, status) = tried(
            "function policy.connect(ctx) return ctx:reply('554', nil, 'no, 100%') end",
            MESSAGE,
        );
        assert_eq!(
            out,
            "connect: 554 no, 100%\nclient: refused: 554 no, 100%\n"
        );
        assert_eq!(status, 0);
    }
}
