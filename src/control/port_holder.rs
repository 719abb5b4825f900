//! Who listens on a port that a milter could not have: from proc, as far as we may look.
#![forbid(unsafe_code)]

use std::fs;

use crate::config::Port;

use super::terminal::clean;

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortHolder {
    /// Its pid.
    pub(super) pid: i32,
    /// Its name as `ps` shows it.
    pub(super) name: String,
}

/// The first process found that listens on the port; `None` when nobody does, or we may not see who.
pub(super) fn of(port: &Port) -> Option<PortHolder> {
    let inodes = match port {
        Port::Inet { port, .. } | Port::Inet6 { port, .. } => {
            let mut inodes = tcp_listeners(&read("/proc/net/tcp"), *port);
            inodes.extend(tcp_listeners(&read("/proc/net/tcp6"), *port));
            inodes
        }
        Port::Unix(path) => unix_listeners(&read("/proc/net/unix"), &path.to_string_lossy()),
    };
    if inodes.is_empty() {
        return None;
    }
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| holds(*pid, &inodes))
        .map(|pid| PortHolder {
            pid,
            name: clean(read(&format!("/proc/{pid}/comm")).trim_end().as_bytes()),
        })
}

fn read(path: &str) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Inodes of listening sockets with this local port (proc(5), /proc/net/tcp: state 0A is LISTEN).
fn tcp_listeners(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
            listens.then(|| fields.get(9)?.parse().ok())?
        })
        .collect()
}

/// Inodes of listening sockets of this path (proc(5), /proc/net/unix: flag 00010000 is a listener).
fn unix_listeners(table: &str, path: &str) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let flags = fields.nth(3)?;
            let inode = fields.nth(2)?.parse().ok()?;
            let name = fields.collect::<Vec<_>>().join(" ");
            (flags == "00010000" && name == path).then_some(inode)
        })
        .collect()
}

fn holds(pid: i32, inodes: &[u64]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        fs::read_link(entry.path())
            .ok()
            .and_then(|link| {
                let link = link.to_str()?;
                let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?;
                inode.parse::<u64>().ok()
            })
            .is_some_and(|inode| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_holder_of_a_tcp_port_and_of_a_socket_is_found() {
        let me = std::process::id().cast_signed();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!("inet:{}@127.0.0.1", tcp.local_addr().unwrap().port());
        assert_eq!(of(&port.parse().unwrap()).unwrap().pid, me);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let unix = UnixListener::bind(&path).unwrap();
        assert_eq!(of(&Port::Unix(path.clone())).unwrap().pid, me);
        drop((tcp, unix));
        assert_eq!(of(&port.parse().unwrap()), None);
        assert_eq!(of(&Port::Unix(path)), None);
    }

    #[test]
    fn a_connection_to_the_port_is_not_a_listener() {
        let table = "header\n   0: 0100007F:0D26 0100007F:0019 01 0:0 0:0 0 0 0 77 1\n   1: 0100007F:0D26 00000000:0000 0A 0:0 0:0 0 0 0 78 1\n";
        assert_eq!(tcp_listeners(table, 0x0d26), [78]);
        assert!(tcp_listeners(table, 25).is_empty());
    }
}
