//! The address of `--listen`: `ADDRESS:PORT`, or a port alone, which is on the loopback address.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where the exporter listens unless told otherwise.
pub const DEFAULT: &str = "127.0.0.1:9366";

/// An address and a port; port 0 lets the kernel choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenError;

impl fmt::Display for ListenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("give ADDRESS:PORT with a numeric address, [IPV6]:PORT, or a PORT alone, which is on 127.0.0.1")
    }
}

impl std::error::Error for ListenError {}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Listen, ListenError> {
        let loopback = |port: &str| -> Result<SocketAddr, ListenError> {
            // A sign is no part of a port.
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let number = port.parse().ok().filter(|_| digits).ok_or(ListenError)?;
            Ok((IpAddr::from(Ipv4Addr::LOCALHOST), number).into())
        };
        match text.strip_prefix("localhost:") {
            Some(port) => loopback(port),
            None => text.parse().or_else(|_| loopback(text)),
        }
        .map(Listen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_numeric_and_a_port_alone_is_on_the_loopback() {
        for (text, address) in [
            (DEFAULT, DEFAULT),
            ("9100", "127.0.0.1:9100"),
            ("0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:9366", "0.0.0.0:9366"),
            ("[::1]:9366", "[::1]:9366"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().0.to_string(), address);
        }
        for text in [
            "",
            ":9366",
            "127.0.0.1",
            "mx.example.org:9366",
            "127.0.0.1:65536",
            "+9366",
            "::1:9366:x",
        ] {
            assert_eq!(text.parse::<Listen>(), Err(ListenError), "{text}");
        }
    }
}
