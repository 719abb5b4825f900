//! Names of users, groups and hosts, without the C library's name service: that loads modules which fit one build of the library only, and a
//! static program crashes in them. The files are read here; what they do not tell is asked of getent(1), a program of its own that knows
//! every source of this machine.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// What passwd(5) tells of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of its own group.
    pub gid: u32,
}

/// A user by name, or by number. `None`: nobody knows it.
///
/// # Errors
/// When the files do not tell and nobody else can be asked.
pub fn user(wanted: &str) -> io::Result<Option<User>> {
    let is_it = |user: &User| user.name == wanted || wanted.parse() == Ok(user.uid);
    match read("/etc/passwd", passwd_line).into_iter().find(is_it) {
        Some(user) => Ok(Some(user)),
        None => Ok(getent("passwd", wanted)?.and_then(|line| passwd_line(&line))),
    }
}

/// A user by number.
pub fn user_of(uid: u32) -> Option<User> {
    user(&uid.to_string()).ok().flatten()
}

/// Number of a group by name, or the number itself if there is such a group.
///
/// # Errors
/// As for [`user`].
pub fn group(wanted: &str) -> io::Result<Option<u32>> {
    let is_it = |group: &Group| group.name == wanted || wanted.parse() == Ok(group.gid);
    let found = match read("/etc/group", group_line).into_iter().find(is_it) {
        Some(group) => Some(group),
        None => getent("group", wanted)?.and_then(|line| group_line(&line)),
    };
    Ok(found.map(|group| group.gid))
}

/// All groups of a user, its own first.
///
/// # Errors
/// When getent(1) is there and fails: fewer groups than a user has are a fault that nobody would see.
pub fn groups_of(user: &User) -> io::Result<Vec<u32>> {
    let mut groups = vec![user.gid];
    let listed = read("/etc/group", group_line)
        .into_iter()
        .filter(|group| group.members.contains(&user.name))
        .map(|group| group.gid);
    // NAME GID GID ...
    let asked = match getent("initgroups", &user.name) {
        Ok(line) => line.unwrap_or_default(),
        // A machine without the program has no other source than the files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let asked = asked
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|gid| gid.parse().ok());
    for gid in listed.chain(asked) {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(groups)
}

/// Addresses of a host.
///
/// # Errors
/// `NotFound` when it has none, or nobody can be asked.
pub fn host(name: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let mut found: Vec<IpAddr> = Vec::new();
    for database in ["ahostsv4", "ahostsv6"] {
        // ADDRESS TYPE NAME, a line for each type of socket.
        let lines = getent_lines(database, name)?.unwrap_or_default();
        for address in lines
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok())
        {
            // An IPv4 address in IPv6 clothes is not another address.
            let is_new = !found.contains(&address);
            if is_new && !matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
                found.push(address);
            }
        }
    }
    if found.is_empty() {
        let text = format!("nobody knows an address of {name}; give a number, such as 127.0.0.1");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(found)
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

fn read<T>(path: &str, line: fn(&str) -> Option<T>) -> Vec<T> {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        .filter_map(line)
        .collect()
}

/// `name:password:uid:gid:...`
fn passwd_line(line: &str) -> Option<User> {
    let mut fields = line.trim_end().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name, uid, gid })
}

/// `name:password:gid:member,member`
fn group_line(line: &str) -> Option<Group> {
    let mut fields = line.trim_end().split(':');
    let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or("").split(',');
    Some(Group {
        name,
        gid,
        members: members.map(str::to_owned).collect(),
    })
}

/// The first line of an answer; `None` when nobody knows the name.
fn getent(database: &str, name: &str) -> io::Result<Option<String>> {
    let lines = getent_lines(database, name)?;
    Ok(lines.and_then(|lines| lines.lines().next().map(str::to_owned)))
}

/// Exit status of getent(1) for a name that is not there.
const NOT_THERE: i32 = 2;

fn getent_lines(database: &str, name: &str) -> io::Result<Option<String>> {
    // An option is no name; and where the program is looked for is not left to who calls us.
    if name.is_empty() || name.starts_with('-') {
        return Ok(None);
    }
    let program = "/usr/bin/getent";
    let output = Command::new(program)
        .args([database, name])
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| {
            let text = format!("the files do not tell, and {program} cannot be run: {error}");
            io::Error::new(error.kind(), text)
        })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok((!text.is_empty()).then_some(text)),
        Some(NOT_THERE) => Ok(None),
        _ => Err(io::Error::other(format!(
            "the files do not tell, and {program} {database} {name} failed: {}",
            output.status
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn root_is_known_by_name_and_number_and_nobody_else_by_a_strange_name() {
        let root = user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(user("0").unwrap(), Some(root.clone()));
        assert_eq!(user_of(0), Some(root.clone()));
        assert_eq!(group("root").unwrap(), Some(0));
        assert!(groups_of(&root).unwrap().starts_with(&[0]));
        // Each of these is asked of the name service, in another process.
        for name in ["no-such-name", "", "-s", "a:b"] {
            let both = (user(name).unwrap(), group(name).unwrap());
            assert_eq!(both, (None, None), "{name:?}");
        }
    }

    #[test]
    fn lines_of_passwd_and_group_are_read_and_nonsense_is_not() {
        let user = passwd_line("pmx6:x:990:991:Mail filters:/nonexistent:/usr/sbin/nologin");
        assert_eq!(
            user,
            Some(User {
                name: "pmx6".to_owned(),
                uid: 990,
                gid: 991
            })
        );
        for line in ["", "+", "a:b", "a:x:one:2", ":x:1:2", "a:x:-1:2"] {
            assert_eq!(passwd_line(line), None, "{line:?}");
        }
        let group = group_line("mail:x:8:postfix,pmx6").unwrap();
        assert_eq!((group.gid, group.members.len()), (8, 2));
        assert!(group_line("mail:x").is_none());
    }

    #[test]
    fn hosts_are_numbers_or_names() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(host("127.0.0.1").unwrap(), [loopback]);
        assert!(host("localhost").unwrap().contains(&loopback));
        let error = host("no-such-host.invalid").unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid"), "{error}");
    }
}
