//! Where a milter listens, as the operator writes it: `inet:PORT@HOST`, `inet6:PORT@HOST`, `unix:PATH`, `local:PATH`.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Most bytes of a unix socket's path (unix(7): 108 with the final NUL).
const PATH_BYTES: usize = 107;
/// Most bytes of a host name.
const HOST_BYTES: usize = 240;

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// `inet:PORT@HOST`
    Inet {
        /// 1 to 65535.
        port: u16,
        /// A name or an address.
        host: String,
    },
    /// `inet6:PORT@HOST`
    Inet6 {
        /// 1 to 65535.
        port: u16,
        /// A name or an address.
        host: String,
    },
    /// `unix:PATH` or `local:PATH`
    Unix(PathBuf),
}

/// A text that is no port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortError(String);

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PortError {}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Port, PortError> {
        let forms = "write inet:PORT@HOST, inet6:PORT@HOST, unix:PATH or local:PATH, such as \"inet:3366@127.0.0.1\"";
        let wrong = |what: &str| {
            Err(PortError(format!(
                "{text:?} is not a port: {what}; {forms}"
            )))
        };
        let Some((family, rest)) = text.split_once(':') else {
            return wrong("its family is missing");
        };
        match family {
            "unix" | "local" => {
                if rest.is_empty() || rest.len() > PATH_BYTES || rest.contains('\0') {
                    return wrong("a socket's path has 1 to 107 bytes");
                }
                Ok(Port::Unix(PathBuf::from(rest)))
            }
            "inet" | "inet6" => {
                let (number, host) = rest.split_once('@').unwrap_or((rest, ""));
                let port = match number.parse::<u16>() {
                    Ok(port) if port > 0 && number.bytes().all(|byte| byte.is_ascii_digit()) => {
                        port
                    }
                    _ => return wrong("its number must be from 1 to 65535"),
                };
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'@';
                if host.is_empty() || host.len() > HOST_BYTES || !host.bytes().all(plain) {
                    return wrong("its host is missing or not a name or address");
                }
                let host = host.to_owned();
                Ok(if family == "inet" {
                    Port::Inet { port, host }
                } else {
                    Port::Inet6 { port, host }
                })
            }
            _ => wrong("its family is not known"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Inet { port, host } => write!(f, "inet:{port}@{host}"),
            Port::Inet6 { port, host } => write!(f, "inet6:{port}@{host}"),
            Port::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Port {
    /// The line for Postfix's main.cf: `smtpd_milters = ...`, whose order is host, then port.
    pub fn for_postfix(&self) -> String {
        match self {
            Port::Inet { port, host } => format!("inet:{host}:{port}"),
            Port::Inet6 { port, host } => format!("inet:[{host}]:{port}"),
            Port::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The socket for Sendmail's `INPUT_MAIL_FILTER`: `S=...`, whose order is port, then host.
    pub fn for_sendmail(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        for text in [
            "inet:3366@127.0.0.1",
            "inet6:3366@::1",
            "unix:/run/pmx/p.sock",
            "inet:1@mx.example",
        ] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        assert_eq!("local:/x".parse::<Port>().unwrap().to_string(), "unix:/x");
        assert_eq!(
            "inet6:25@[::1]".parse::<Port>().unwrap().for_postfix(),
            "inet:[::1]:25"
        );
        assert_eq!(
            "inet:25@127.0.0.1".parse::<Port>().unwrap().for_postfix(),
            "inet:127.0.0.1:25"
        );
    }

    #[test]
    fn what_is_no_port_says_what_would_be() {
        for text in [
            "",
            "3366",
            "inet:",
            "inet:0@h",
            "inet:65536@h",
            "inet:+1@h",
            "inet:25",
            "inet:25@",
            "tcp:25@h",
            "unix:",
            "inet:25@a b",
        ] {
            let error = text.parse::<Port>().unwrap_err().to_string();
            assert!(error.contains("inet:PORT@HOST"), "{text}: {error}");
        }
    }
}
