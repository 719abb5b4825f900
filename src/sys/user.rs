//! Who we are, and how a process becomes the unprivileged user for good.

use std::io;

use nix::unistd::{self, Gid, Uid};

use super::names;

/// An account, looked up once before any fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id, never 0.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups. Asked for once: a name service may hang, and children must not.
    pub groups: Vec<u32>,
}

/// Why an account cannot be used.
#[derive(Debug)]
pub enum AccountError {
    /// There is no such user.
    Unknown(String),
    /// It is root: policies never run as root.
    Root(String),
    /// The look-up failed.
    Lookup(String, io::Error),
}

impl std::fmt::Display for AccountError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AccountError::Unknown(name) => write!(
                f,
                "there is no user \"{name}\", as which policies are to run; create it (adduser --system --group {name}) or set user = \"...\" in pmx.conf"
            ),
            AccountError::Root(name) => {
                write!(
                    f,
                    "user \"{name}\" is root, and a policy never runs as root; set user = \"...\" in pmx.conf"
                )
            }
            AccountError::Lookup(name, error) => {
                write!(f, "cannot look up user \"{name}\": {error}")
            }
        }
    }
}

impl std::error::Error for AccountError {}

/// Looks up the user as which policies run.
///
/// # Errors
/// When there is no such user, or it is root.
pub fn account(name: &str) -> Result<Account, AccountError> {
    let failed = |error| AccountError::Lookup(name.to_owned(), error);
    let user = names::user(name).map_err(failed)?;
    let user = user.ok_or_else(|| AccountError::Unknown(name.to_owned()))?;
    if user.uid == 0 {
        return Err(AccountError::Root(name.to_owned()));
    }
    Ok(Account {
        uid: user.uid,
        gid: user.gid,
        groups: names::groups_of(&user).map_err(failed)?,
        name: user.name,
    })
}

/// Number of a user by name.
pub fn uid_of(name: &str) -> Option<u32> {
    names::user(name).ok().flatten().map(|user| user.uid)
}

/// Number of a group by name.
pub fn gid_of(name: &str) -> Option<u32> {
    names::group(name).ok().flatten()
}

/// May this process give its files to the group? Root may always, others when they are in it.
pub fn may_give_to_group(gid: u32) -> bool {
    let gid = Gid::from_raw(gid);
    unistd::geteuid().is_root()
        || unistd::getegid() == gid
        || unistd::getgroups().is_ok_and(|groups| groups.contains(&gid))
}

/// Effective user id of this process.
pub fn effective_uid() -> u32 {
    unistd::geteuid().as_raw()
}

/// Name of the effective user, or its number.
pub fn effective_name() -> String {
    let uid = effective_uid();
    names::user_of(uid).map_or_else(|| uid.to_string(), |user| user.name)
}

/// Becomes `account` for good: groups, then group, then user; verifies that there is no way back. Does nothing for a process that
/// already runs as an ordinary user.
///
/// # Errors
/// The kernel's, or `PermissionDenied` when root could be had back.
pub fn become_account(account: &Account) -> io::Result<()> {
    if !unistd::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    unistd::setgroups(&groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)?;
    let root = Uid::from_raw(0);
    let back = unistd::setresuid(root, root, root).is_ok();
    let (users, are) = (unistd::getresuid()?, unistd::getresgid()?);
    let in_all = [users.real, users.effective, users.saved] == [uid; 3]
        && [are.real, are.effective, are.saved] == [gid; 3]
        && in_order(unistd::getgroups()?) == in_order(groups);
    if back || !in_all {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the change of user did not take effect",
        ));
    }
    Ok(())
}

/// As the kernel keeps them, whatever order they were given in.
fn in_order(groups: Vec<Gid>) -> Vec<u32> {
    let mut numbers: Vec<u32> = groups.into_iter().map(Gid::as_raw).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
