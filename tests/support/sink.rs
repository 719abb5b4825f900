//! An SMTP server at the end of the line: it takes every message and keeps it for the test to look at.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{SOON, wait_until};

/// What arrived.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// Address of MAIL, with brackets and words.
    pub sender: String,
    /// Addresses of RCPT.
    pub recipients: Vec<String>,
    /// Header fields and body, lines ending in LF.
    pub text: String,
}

impl Delivered {
    /// Has it this header line?
    pub fn has_line(&self, line: &str) -> bool {
        self.text.lines().any(|other| other == line)
    }

    /// What comes after the empty line.
    pub fn body(&self) -> &str {
        self.text.split_once("\n\n").map_or("", |(_, body)| body)
    }
}

/// The server; it ends when dropped.
pub struct Sink {
    /// Its port on 127.0.0.1.
    pub port: u16,
    messages: Arc<Mutex<Vec<Delivered>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts it on a port that the kernel picks: it listens at once, so nobody can take it.
    pub fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (kept, stop) = (Arc::clone(&messages), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let kept = Arc::clone(&kept);
                // Threads end with their connections, which the deadline of reads bounds.
                thread::spawn(move || drop(serve(stream, &kept)));
            }
        });
        Sink {
            port,
            messages,
            ends,
            thread: Some(thread),
        }
    }

    /// What arrived so far.
    pub fn messages(&self) -> Vec<Delivered> {
        self.messages.lock().unwrap().clone()
    }

    /// Waits for so many messages.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Delivered> {
        wait_until(2 * SOON, &format!("{count} messages at the sink"), || {
            let messages = self.messages();
            (messages.len() >= count).then_some(messages)
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes accept.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Delivered>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    writer.write_all(b"220 sink ESMTP\r\n")?;
    let mut message = Delivered::default();
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let command = line.trim_end();
        let verb = command.get(..4).unwrap_or("").to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "MAIL" => {
                command
                    .get(10..)
                    .unwrap_or("")
                    .clone_into(&mut message.sender);
                b"250 ok\r\n"
            }
            "RCPT" => {
                message
                    .recipients
                    .push(command.get(8..).unwrap_or("").to_owned());
                b"250 ok\r\n"
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n")?;
                read_content(&mut reader, &mut message.text)?;
                kept.lock().unwrap().push(std::mem::take(&mut message));
                b"250 ok\r\n"
            }
            "QUIT" => {
                writer.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            "RSET" => {
                message = Delivered::default();
                b"250 ok\r\n"
            }
            _ => b"250 ok\r\n",
        };
        writer.write_all(reply)?;
    }
}

fn read_content(reader: &mut impl BufRead, text: &mut String) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\r', '\n']);
        if line == "." {
            return Ok(());
        }
        text.push_str(line.strip_prefix('.').unwrap_or(line));
        text.push('\n');
    }
}
