//! HTTP as a client speaks it, a connection a request, and the exporter as a process.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::command::{Outcome, Running};
use super::milter::Milter;
use super::{SOON, process, wait_until};

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Such as 200.
    pub status: u16,
    /// The lines of the head, in lower case.
    pub head: String,
    /// The rest.
    pub body: String,
}

impl Reply {
    /// A header's value, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&start))
    }

    /// The reply, if its status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        self
    }
}

/// Connects; reads and writes fail when nothing happens for long.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

/// Reads an answer up to the end of the connection.
pub fn reply(stream: &mut TcpStream) -> io::Result<Reply> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let broken = || io::Error::other(format!("no answer of HTTP: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.strip_prefix("HTTP/1.").and_then(|it| it.get(2..5));
    Ok(Reply {
        status: status.and_then(|it| it.parse().ok()).ok_or_else(broken)?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// Sends these bytes and reads the answer.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<Reply> {
    let mut stream = connect(address)?;
    stream.write_all(bytes)?;
    reply(&mut stream)
}

/// GET with these header lines.
#[track_caller]
pub fn get_with(address: SocketAddr, path: &str, headers: &[&str]) -> Reply {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    request.push_str("\r\n");
    exchange(address, request.as_bytes()).unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// GET.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Reply {
    get_with(address, path, &[])
}

/// A `pmx-milter exporter` that runs.
pub struct Exporter {
    running: Running,
    /// Where.
    pub address: SocketAddr,
}

impl Exporter {
    /// On a port that the kernel chooses.
    #[track_caller]
    pub fn of(milter: &Milter, more: &[&str]) -> Exporter {
        Exporter::on(milter, "0", more)
    }

    /// At this address.
    #[track_caller]
    pub fn on(milter: &Milter, listen: &str, more: &[&str]) -> Exporter {
        let mut arguments = vec!["exporter", "--listen", listen];
        arguments.extend(more);
        let mut running = milter.pmx_in_background(&arguments);
        let address = wait_until(SOON, "the exporter serves", || {
            let said = running.said();
            assert!(!running.has_ended(), "{said}");
            let (_, rest) = said.split_once("serving http://")?;
            rest.split_once("/metrics\n")?.0.parse().ok()
        });
        Exporter { running, address }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// What it wrote so far.
    pub fn said(&mut self) -> String {
        self.running.said()
    }

    /// GET from it.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        get(self.address, path)
    }

    /// Ends it by a signal.
    #[track_caller]
    pub fn end(self, by: nix::sys::signal::Signal) -> Outcome {
        process::signal(self.pid(), by);
        self.running.wait(SOON)
    }
}
