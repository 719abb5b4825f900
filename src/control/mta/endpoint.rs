//! Where an MTA looks for a filter, and whether that is where a milter listens. Pure: nothing is resolved, nothing is connected to.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::Port;

/// Where an MTA connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Host and port.
    Tcp(String, u16),
    /// A socket's path.
    Unix(PathBuf),
    /// A text that this MTA would not understand, or a port by name.
    Strange(String),
}

impl Endpoint {
    /// As Postfix writes it: `inet:HOST:PORT`, `inet:[ADDRESS]:PORT`, `HOST:PORT`, `unix:PATH`.
    pub(super) fn of_postfix(text: &str) -> Endpoint {
        if let Some(path) = text.strip_prefix("unix:") {
            return Endpoint::Unix(PathBuf::from(path));
        }
        let rest = text.strip_prefix("inet:").unwrap_or(text);
        match rest.rsplit_once(':') {
            Some((host, port)) => tcp(host, port).unwrap_or(Endpoint::Strange(text.to_owned())),
            None => Endpoint::Strange(text.to_owned()),
        }
    }

    /// As Sendmail writes it: `inet:PORT@HOST`, `inet6:PORT@HOST`, `unix:PATH`, `local:PATH`, a path.
    pub(super) fn of_sendmail(text: &str) -> Endpoint {
        let (family, rest) = text.split_once(':').unwrap_or(("unix", text));
        match family {
            "unix" | "local" => Endpoint::Unix(PathBuf::from(rest)),
            "inet" | "inet6" => rest
                .split_once('@')
                .and_then(|(port, host)| tcp(host, port))
                .unwrap_or(Endpoint::Strange(text.to_owned())),
            _ => Endpoint::Strange(text.to_owned()),
        }
    }

    /// Is this where the milter listens? `root`: what a chrooted MTA takes for `/`, if it may be. Names that cannot be compared without
    /// asking DNS are taken for the same.
    pub(super) fn leads_to(&self, port: &Port, root: Option<&Path>) -> bool {
        match (self, port) {
            (
                Endpoint::Tcp(asked, number),
                Port::Inet { port, host } | Port::Inet6 { port, host },
            ) => number == port && may_be_same_host(asked, host),
            (Endpoint::Unix(asked), Port::Unix(path)) => {
                let inside = |root: &Path| root.join(asked.strip_prefix("/").unwrap_or(asked));
                asked == path || root.is_some_and(|root| inside(root) == *path)
            }
            _ => false,
        }
    }
}

fn tcp(host: &str, port: &str) -> Option<Endpoint> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty() && !host.contains('@')).then(|| Endpoint::Tcp(host.to_owned(), port))
}

fn may_be_same_host(asked: &str, listens: &str) -> bool {
    let local = |host: &str| host.eq_ignore_ascii_case("localhost");
    let address = |host: &str| host.parse::<IpAddr>().ok();
    let loopback = |host: &str| local(host) || address(host).is_some_and(|it| it.is_loopback());
    match (address(asked), address(listens)) {
        (_, Some(everywhere)) if everywhere.is_unspecified() => true,
        (Some(asked), Some(listens)) => asked == listens,
        // "localhost" may be 127.0.0.1 or ::1, and nothing else.
        _ if local(asked) || local(listens) => loopback(asked) && loopback(listens),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_two_mtas_write_port_and_host_in_their_own_order() {
        let tcp = |host: &str, port| Endpoint::Tcp(host.to_owned(), port);
        for (text, endpoint) in [
            ("inet:127.0.0.1:3366", tcp("127.0.0.1", 3366)),
            ("inet:[::1]:3366", tcp("::1", 3366)),
            ("mx.example:25", tcp("mx.example", 25)),
            ("unix:/run/x", Endpoint::Unix("/run/x".into())),
            (
                "inet:3366@127.0.0.1",
                Endpoint::Strange("inet:3366@127.0.0.1".into()),
            ),
            ("inet:h:milter", Endpoint::Strange("inet:h:milter".into())),
        ] {
            assert_eq!(Endpoint::of_postfix(text), endpoint);
        }
        for (text, endpoint) in [
            ("inet:3366@127.0.0.1", tcp("127.0.0.1", 3366)),
            ("inet6:3366@[::1]", tcp("::1", 3366)),
            ("local:/run/x", Endpoint::Unix("/run/x".into())),
            ("/run/x", Endpoint::Unix("/run/x".into())),
            (
                "inet:127.0.0.1:3366",
                Endpoint::Strange("inet:127.0.0.1:3366".into()),
            ),
        ] {
            assert_eq!(Endpoint::of_sendmail(text), endpoint);
        }
    }

    #[test]
    fn an_endpoint_leads_to_a_port_that_may_be_the_same_and_to_no_other() {
        let root = Some(Path::new("/var/spool/postfix"));
        for (asked, port, leads) in [
            ("inet:127.0.0.1:3366", "inet:3366@127.0.0.1", true),
            ("inet:localhost:3366", "inet:3366@127.0.0.1", true),
            ("inet:localhost:3366", "inet6:3366@::1", true),
            ("inet:127.0.0.1:3366", "inet:3366@0.0.0.0", true),
            ("inet:mx.example:3366", "inet:3366@192.0.2.1", true),
            ("inet:127.0.0.1:3367", "inet:3366@127.0.0.1", false),
            ("inet:127.0.0.2:3366", "inet:3366@127.0.0.1", false),
            ("inet:localhost:3366", "inet:3366@192.0.2.1", false),
            ("inet:[::1]:3366", "inet:3366@127.0.0.1", false),
            ("unix:/pmx/s", "unix:/var/spool/postfix/pmx/s", true),
            ("unix:pmx/s", "unix:/var/spool/postfix/pmx/s", true),
            ("unix:/run/pmx/s", "unix:/run/pmx/s", true),
            ("unix:/run/pmx/s", "unix:/run/pmx/t", false),
            ("unix:/run/pmx/s", "inet:3366@127.0.0.1", false),
        ] {
            let port: Port = port.parse().unwrap();
            assert_eq!(
                Endpoint::of_postfix(asked).leads_to(&port, root),
                leads,
                "{asked} {port}"
            );
        }
    }
}
