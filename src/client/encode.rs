//! Commands as an MTA writes them, appended to a buffer.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use crate::milter::frame::put;

/// Where the SMTP client is, as connect tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6 with a port, 0 for unknown.
    Inet(SocketAddr),
    /// A socket's path.
    Unix(Vec<u8>),
    /// Not known.
    Unknown,
}

/// `O`
pub fn negotiate(out: &mut Vec<u8>, version: u32, actions: u32, steps: u32) {
    let words = [version, actions, steps].map(u32::to_be_bytes);
    put(out, b'O', &[&words[0], &words[1], &words[2]]);
}

/// `D`: the macros of the command with this code.
pub fn macros(out: &mut Vec<u8>, command: u8, macros: &[(&[u8], &[u8])]) {
    let mut payload = vec![command];
    for (name, value) in macros {
        payload.extend_from_slice(name);
        payload.push(0);
        payload.extend_from_slice(value);
        payload.push(0);
    }
    put(out, b'D', &[&payload]);
}

/// `C`
pub fn connect(out: &mut Vec<u8>, host: &[u8], address: &Address) {
    match address {
        Address::Inet(socket) => {
            let family: &[u8] = if socket.is_ipv4() { b"4" } else { b"6" };
            let text = socket.ip().to_string();
            let port = socket.port().to_be_bytes();
            put(
                out,
                b'C',
                &[host, b"\0", family, &port, text.as_bytes(), b"\0"],
            );
        }
        Address::Unix(path) => put(out, b'C', &[host, b"\0L\0\0", path, b"\0"]),
        Address::Unknown => put(out, b'C', &[host, b"\0U"]),
    }
}

/// `H`
pub fn helo(out: &mut Vec<u8>, name: &[u8]) {
    put(out, b'H', &[name, b"\0"]);
}

/// `M`, the address as the SMTP client gave it, brackets and all.
pub fn mail(out: &mut Vec<u8>, address: &[u8], args: &[Vec<u8>]) {
    envelope(out, b'M', address, args);
}

/// `R`
pub fn rcpt(out: &mut Vec<u8>, address: &[u8], args: &[Vec<u8>]) {
    envelope(out, b'R', address, args);
}

fn envelope(out: &mut Vec<u8>, code: u8, address: &[u8], args: &[Vec<u8>]) {
    let mut payload = address.to_vec();
    payload.push(0);
    for word in args {
        payload.extend_from_slice(word);
        payload.push(0);
    }
    put(out, code, &[&payload]);
}

/// `T`
pub fn data(out: &mut Vec<u8>) {
    put(out, b'T', &[]);
}

/// `L`
pub fn header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put(out, b'L', &[name, b"\0", value, b"\0"]);
}

/// `N`
pub fn eoh(out: &mut Vec<u8>) {
    put(out, b'N', &[]);
}

/// `B`, at most 65535 bytes.
pub fn body(out: &mut Vec<u8>, chunk: &[u8]) {
    put(out, b'B', &[chunk]);
}

/// `E`, with a last body chunk or (as the MTAs do) none.
pub fn eom(out: &mut Vec<u8>, chunk: &[u8]) {
    put(out, b'E', &[chunk]);
}

/// `U`
pub fn unknown(out: &mut Vec<u8>, command: &[u8]) {
    put(out, b'U', &[command, b"\0"]);
}

/// `A`
pub fn abort(out: &mut Vec<u8>) {
    put(out, b'A', &[]);
}

/// `Q`
pub fn quit(out: &mut Vec<u8>) {
    put(out, b'Q', &[]);
}

/// `K`
pub fn quit_new_connection(out: &mut Vec<u8>) {
    put(out, b'K', &[]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::milter::command::{Command, Peer, parse};
    use crate::milter::frame;

    #[test]
    fn what_is_encoded_is_parsed_as_the_same_command() {
        let mut out = Vec::new();
        negotiate(&mut out, 6, 0x1ff, 0x1f_ffff);
        connect(
            &mut out,
            b"h",
            &Address::Inet("192.0.2.1:25".parse().unwrap()),
        );
        connect(&mut out, b"l", &Address::Unix(b"/s".to_vec()));
        mail(&mut out, b"<a@b>", &[b"SIZE=1".to_vec()]);
        header(&mut out, b"X", b"y");
        body(&mut out, b"hi");
        let mut rest = out.as_slice();
        let mut next = || {
            let (frame, used) = frame::cut(rest, frame::PAYLOAD_BYTES).unwrap().unwrap();
            rest = &rest[used..];
            parse(frame).unwrap()
        };
        assert_eq!(next(), Command::Negotiate(6, 0x1ff, 0x1f_ffff));
        assert_eq!(next(), Command::Connect(b"h", Peer::Inet(25, b"192.0.2.1")));
        assert_eq!(next(), Command::Connect(b"l", Peer::Unix(b"/s")));
        assert_eq!(next(), Command::Mail(b"<a@b>", vec![b"SIZE=1"]));
        assert_eq!(next(), Command::Header(b"X", b"y"));
        assert_eq!(next(), Command::Body(b"hi"));
    }
}
