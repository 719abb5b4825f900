//! SMTP clients: a dialogue of the test's own, swaks for one message, smtp-source for many.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use super::SOON;
use super::command::{Outcome, run};

/// A session with an MTA.
pub struct Smtp {
    reader: BufReader<TcpStream>,
}

impl Smtp {
    /// Connects and says EHLO.
    #[track_caller]
    pub fn connect(port: u16) -> Smtp {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(2 * SOON)).unwrap();
        let mut smtp = Smtp {
            reader: BufReader::new(stream),
        };
        let (code, text) = smtp.reply();
        assert_eq!(code, 220, "{text}");
        smtp.expect("EHLO c.test", 250);
        smtp
    }

    /// Sends a line; code and text of the reply.
    #[track_caller]
    pub fn command(&mut self, line: &str) -> (u16, String) {
        self.reader
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .unwrap();
        self.reply()
    }

    /// Sends a line; the text of the reply, which must have this code.
    #[track_caller]
    pub fn expect(&mut self, line: &str, code: u16) -> String {
        let (got, text) = self.command(line);
        assert_eq!(got, code, "{line}: {text}");
        text
    }

    /// A whole message; the reply to its final dot.
    #[track_caller]
    pub fn message(&mut self, sender: &str, recipient: &str, content: &str) -> (u16, String) {
        self.expect(&format!("MAIL FROM:<{sender}>"), 250);
        self.expect(&format!("RCPT TO:<{recipient}>"), 250);
        self.expect("DATA", 354);
        self.command(&format!("{content}\r\n."))
    }

    #[track_caller]
    fn reply(&mut self) -> (u16, String) {
        let mut all = String::new();
        loop {
            let start = all.len();
            self.reader.read_line(&mut all).unwrap();
            let line = &all[start..];
            assert!(!line.is_empty(), "the MTA closed the connection");
            if line.as_bytes().get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| code.parse().ok());
                return (code.unwrap_or_else(|| panic!("reply {line:?}")), all);
            }
        }
    }
}

/// One message by swaks. Status 0 sent; 23 MAIL, 24 RCPT, 25 DATA, 26 message refused. Standard output is the dialogue.
pub fn swaks(port: u16, sender: &str, recipient: &str, more: &[&str]) -> Outcome {
    let mut command = Command::new("swaks");
    command
        .args(["--server", &format!("127.0.0.1:{port}"), "--helo", "c.test"])
        .args(["--from", sender, "--to", recipient])
        .args(["--header", "X-Test: 1", "--body", "Hello"])
        .args(["--timeout", "60"])
        .args(more);
    run(command, 4 * SOON)
}

/// `messages` messages of `bytes` bytes over `sessions` sessions at a time, a connection each.
pub fn smtp_source(port: u16, sessions: u32, messages: u32, bytes: u32) -> Outcome {
    let mut command = Command::new("/usr/sbin/smtp-source");
    command
        .args(["-s", &sessions.to_string(), "-m", &messages.to_string()])
        .args(["-l", &bytes.to_string()])
        .args(["-f", "many@b.example", "-t", "user@example.org"])
        .arg(format!("127.0.0.1:{port}"));
    run(command, 4 * SOON)
}
