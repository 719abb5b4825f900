//! TCP ports in numbers: are two of them the same, can both be had, and who has them now.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{SockaddrStorage, getsockname};
use nix::sys::stat::fstat;

use super::{ListenError, Listener};
use crate::config::Port;
use crate::sys::names;

/// How two ports stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::master) enum Relation {
    /// They are one, however they are written.
    Same,
    /// Only one of them can be had at a time.
    Overlap,
    /// They have nothing to do with each other.
    Apart,
}

/// The address of a TCP port; `None` for a unix socket. It may take as long as a name service takes.
///
/// # Errors
/// [`ListenError::Host`]
pub(in crate::master) fn of(port: &Port) -> Result<Option<SocketAddr>, ListenError> {
    let (number, host, wants_v4) = match port {
        Port::Inet { port, host } => (*port, host, true),
        Port::Inet6 { port, host } => (*port, host, false),
        Port::Unix(_) => return Ok(None),
    };
    let address = match names::host(host) {
        Ok(addresses) => addresses.into_iter().find(|it| it.is_ipv4() == wants_v4),
        Err(error) => return Err(ListenError::Host(port.clone(), error.to_string())),
    };
    match address {
        Some(address) => Ok(Some(SocketAddr::new(address, number))),
        None => Err(ListenError::Host(port.clone(), "only others".to_owned())),
    }
}

/// How two ports stand to each other. A host that has no address now is nobody's: binding it tells why.
pub(in crate::master) fn relation(one: &Port, other: &Port) -> Relation {
    if one == other {
        return Relation::Same;
    }
    match of(one) {
        Ok(one) => to_address(one, of(other).ok().flatten()),
        Err(_) => Relation::Apart,
    }
}

/// The same for a socket that is there and the address of the other one: no name is looked up. `was`: as it was written.
pub(in crate::master) fn relation_of(
    there: &Listener,
    was: &Port,
    (other, address): (&Port, Option<SocketAddr>),
) -> Relation {
    if was == other {
        return Relation::Same;
    }
    to_address(bound_to(there), address)
}

fn to_address(one: Option<SocketAddr>, other: Option<SocketAddr>) -> Relation {
    match (one, other) {
        (Some(one), Some(other)) if one == other => Relation::Same,
        (Some(one), Some(other)) if overlap(one, other) => Relation::Overlap,
        _ => Relation::Apart,
    }
}

/// The address of a TCP socket.
pub(in crate::master) fn bound_to(listener: &Listener) -> Option<SocketAddr> {
    let address: SockaddrStorage = getsockname(listener.socket.as_raw_fd()).ok()?;
    let v4 = || Some(SocketAddr::V4((*address.as_sockaddr_in()?).into()));
    let v6 = || Some(SocketAddr::V6((*address.as_sockaddr_in6()?).into()));
    v4().or_else(v6)
}

/// Does a socket on the one address keep the other from being bound? `::` takes IPv4 as well (ipv6(7), `IPV6_V6ONLY`).
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let any = |it: IpAddr| it.is_unspecified();
    one.port() == other.port()
        && match (a.is_ipv4(), b.is_ipv4()) {
            (true, false) => any(b),
            (false, true) => any(a),
            _ => a == b || any(a) || any(b),
        }
}

/// Refuses a port that overlaps with the one that `listener` has, if somebody else listens where it would as well: it could not be had
/// when ours is closed.
///
/// # Errors
/// [`ListenError::InUse`]
pub(in crate::master) fn only_ours(listener: &Listener, port: &Port) -> Result<(), ListenError> {
    let Ok(Some(wanted)) = of(port) else {
        return Ok(());
    };
    let tables = [("/proc/net/tcp", 8), ("/proc/net/tcp6", 32)];
    // A socket whose number cannot be read is told apart from no other: then nothing is refused here.
    let Ok(ours) = fstat(&listener.socket).map(|it| it.st_ino) else {
        return Ok(());
    };
    let taken = tables
        .iter()
        .flat_map(|(path, digits)| {
            listeners(&fs::read_to_string(path).unwrap_or_default(), *digits)
        })
        // One on `::` may leave IPv4 alone, which the table does not tell: trying tells.
        .any(|(address, inode)| {
            inode != ours && address.is_ipv4() == wanted.is_ipv4() && overlap(address, wanted)
        });
    if taken {
        return Err(ListenError::InUse(port.clone()));
    }
    Ok(())
}

/// Addresses and inodes of listening sockets (proc(5), /proc/net/tcp: state 0A is LISTEN). `digits`: of an address.
fn listeners(table: &str, digits: usize) -> Vec<(SocketAddr, u64)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (host, number) = fields.get(1)?.split_once(':')?;
            if *fields.get(3)? != "0A" || host.len() != digits {
                return None;
            }
            let number = u16::from_str_radix(number, 16).ok()?;
            let inode = fields.get(9)?.parse().ok()?;
            Some((SocketAddr::new(ip(host)?, number), inode))
        })
        .collect()
}

/// Words of 32 bits, each in the machine's own order.
fn ip(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for word in hex.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes.as_slice())
        .ok()
        .map(|it| Ipv6Addr::from(it).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_overlaps_is_the_same_number_on_the_same_or_on_every_address() {
        use Relation::{Apart, Overlap, Same};
        let table = [
            ("inet:1@127.0.0.1", "inet:1@127.0.0.1", Same),
            ("inet6:1@::1", "inet6:1@0:0::1", Same),
            ("inet:1@127.0.0.1", "inet:2@127.0.0.1", Apart),
            ("inet:1@127.0.0.1", "inet:1@127.0.0.2", Apart),
            ("inet:1@127.0.0.1", "inet:1@0.0.0.0", Overlap),
            ("inet:1@127.0.0.1", "inet6:1@::", Overlap),
            ("inet:1@0.0.0.0", "inet6:1@::", Overlap),
            ("inet:1@127.0.0.1", "inet6:1@::1", Apart),
            ("inet:1@127.0.0.1", "inet6:1@::ffff:127.0.0.1", Overlap),
            ("unix:/a", "local:/a", Same),
            ("unix:/a", "unix:/b", Apart),
            ("unix:/a", "inet:1@0.0.0.0", Apart),
        ];
        for (one, other, expected) in table {
            let (a, b) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(relation(&a, &b), expected, "{one} {other}");
            assert_eq!(relation(&b, &a), expected, "{other} {one}");
        }
    }

    #[test]
    fn who_listens_is_read_from_the_kernels_table() {
        for (address, path, digits) in [
            ("127.0.0.3:0", "/proc/net/tcp", 8),
            ("[::1]:0", "/proc/net/tcp6", 32),
        ] {
            let Ok(listener) = TcpListener::bind(address) else {
                // A machine without IPv6.
                continue;
            };
            let here = listener.local_addr().unwrap();
            let inode = fstat(&listener).unwrap().st_ino;
            let table = fs::read_to_string(path).unwrap();
            assert!(
                listeners(&table, digits).contains(&(here, inode)),
                "{table}"
            );
        }
    }
}
