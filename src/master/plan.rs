//! What a trial found out for the program that takes over: the configuration, the user, the policy's bytes, and what changes.
//!
//! Written and read by one and the same program file, so that its format is nobody else's business.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::handover::{Program, Source, sources};
use super::listener::Access;
use crate::config::{Config, MilterConfig};
use crate::policy::Bundle;
use crate::sys::user::Account;

/// The plan.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config_file: PathBuf,
    pub(super) config: String,
    pub(super) milter: MilterConfig,
    pub(super) account: Option<Account>,
    /// Of the board and a unix socket. Looked up in the trial, as the account is: a name service that hangs must not hold up a master.
    pub(super) group: Option<u32>,
    pub(super) access: Access,
    /// Of a TCP port that was not the running one's.
    pub(super) address: Option<SocketAddr>,
    /// Whose answer it is.
    pub(super) request: String,
    /// For the operator.
    pub(super) changes: Vec<String>,
    pub(super) bundle: Bundle,
}

#[derive(Serialize, Deserialize)]
struct Head {
    config_file: PathBuf,
    config: String,
    milter: String,
    account: Option<AccountHead>,
    group: Option<u32>,
    access: Access,
    address: Option<SocketAddr>,
    request: String,
    changes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct AccountHead {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Plan {
    /// In bytes: the length of the head, the head, the policy.
    ///
    /// # Errors
    /// When a path is no text.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let head = serde_json::to_vec(&Head {
            config_file: self.config_file.clone(),
            config: self.config.clone(),
            milter: self.milter.name.to_string(),
            account: self.account.as_ref().map(|it| AccountHead {
                name: it.name.clone(),
                uid: it.uid,
                gid: it.gid,
                groups: it.groups.clone(),
            }),
            group: self.group,
            access: self.access,
            address: self.address,
            request: self.request.clone(),
            changes: self.changes.clone(),
        })?;
        let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.bundle.encode());
        Ok(bytes)
    }

    /// From bytes.
    ///
    /// # Errors
    /// When they are no plan.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Plan> {
        let short = || io::Error::new(io::ErrorKind::InvalidData, "a plan that is cut short");
        let (length, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (head, bundle) = rest.split_at_checked(length).ok_or_else(short)?;
        let head: Head = serde_json::from_slice(head)?;
        let config =
            Config::parse_text(&head.config_file, &head.config).map_err(io::Error::other)?;
        let milter = config
            .milters
            .into_iter()
            .find(|milter| milter.name.to_string() == head.milter)
            .ok_or_else(|| io::Error::other("a plan for another milter"))?;
        Ok(Plan {
            milter,
            config_file: head.config_file,
            config: head.config,
            account: head.account.map(|it| Account {
                name: it.name,
                uid: it.uid,
                gid: it.gid,
                groups: it.groups,
            }),
            group: head.group,
            access: head.access,
            address: head.address,
            request: head.request,
            changes: head.changes,
            bundle: Bundle::decode(bundle).map_err(io::Error::other)?,
        })
    }
}

/// What differs, a line each: keys with their values, the policy's files, the program.
pub(super) fn changes(
    (old_config, new_config): (&str, &str),
    (old_policy, bundle): (&[Source], &Bundle),
    (old_program, new_program): (&Program, &Program),
) -> Vec<String> {
    let (old, new) = (settings(old_config), settings(new_config));
    let names: std::collections::BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let unset = "not set";
    let mut lines: Vec<String> = names
        .into_iter()
        .filter(|name| old.get(name) != new.get(name))
        .map(|name| {
            let value =
                |map: &BTreeMap<&str, &str>| map.get(name).copied().unwrap_or(unset).to_owned();
            format!("{name}: {} -> {}", value(&old), value(&new))
        })
        .collect();
    lines.extend(policy_changes(old_policy, &sources(bundle)));
    if old_program != new_program {
        lines.push(if old_program.version == new_program.version {
            format!("program: another file of version {}", new_program.version)
        } else {
            format!(
                "program: {} -> {}",
                old_program.version, new_program.version
            )
        });
    }
    lines
}

/// The lines `key = value` of a dump. A key that is not set stands in a comment.
fn settings(dump: &str) -> BTreeMap<&str, &str> {
    dump.lines()
        .filter(|line| !line.starts_with(['#', '[']))
        .filter_map(|line| line.split_once(" = "))
        .collect()
}

fn policy_changes(old: &[Source], new: &[Source]) -> Vec<String> {
    let find = |all: &[Source], path: &Path| all.iter().find(|it| it.path == path).cloned();
    let mut lines = Vec::new();
    for source in new {
        let path = source.path.display();
        match find(old, &source.path) {
            None => lines.push(format!("policy: {path} is new")),
            Some(before) if before != *source => lines.push(format!("policy: {path} has changed")),
            Some(_) => {}
        }
    }
    for source in old {
        if find(new, &source.path).is_none() {
            lines.push(format!(
                "policy: {} is no more part of it",
                source.path.display()
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::Wants;

    fn bundle(source: &str) -> Bundle {
        Bundle {
            path: "/p.lua".into(),
            source: source.as_bytes().to_vec(),
            modules: Vec::new(),
            lists: Vec::new(),
            wants: Wants::default(),
        }
    }

    #[test]
    fn what_changed_is_told_by_key_file_and_program_and_nothing_else_is() {
        let program = |version: &str, inode| Program {
            version: version.to_owned(),
            device: 1,
            inode,
        };
        let old =
            "# a comment\nuser = \"\"\n[milter.\"a\"]\nport = \"x\"\nmax = 3\n# limit: open\n";
        let new = "user = \"\"\n[milter.\"a\"]\nport = \"x\"\nmax = 4\nlimit = 7\n";
        let before = sources(&bundle("a"));
        let same = (program("1", 1), program("1", 1));
        assert_eq!(
            changes((old, old), (&before, &bundle("a")), (&same.0, &same.1)),
            Vec::<String>::new()
        );
        let other = program("2", 2);
        assert_eq!(
            changes((old, new), (&before, &bundle("b")), (&same.0, &other)),
            [
                "limit: not set -> 7",
                "max: 3 -> 4",
                "policy: /p.lua has changed",
                "program: 1 -> 2"
            ]
        );
    }

    #[test]
    fn a_plan_survives_its_bytes_and_half_a_plan_is_none() {
        let text = "[milter.a]\nport = \"inet:3366@127.0.0.1\"\npolicy = \"p.lua\"\n";
        let config = Config::parse_text(Path::new("/c"), text).unwrap();
        let plan = Plan {
            config_file: "/c".into(),
            config: text.to_owned(),
            milter: config.milters[0].clone(),
            account: None,
            group: Some(7),
            access: Access {
                mode: 0o660,
                owner: None,
                group: Some(8),
            },
            address: Some("[::1]:3366".parse().unwrap()),
            request: "id".to_owned(),
            changes: vec!["x".to_owned()],
            bundle: bundle("return {}"),
        };
        let bytes = plan.encode().unwrap();
        let read = Plan::decode(&bytes).unwrap();
        assert_eq!(read.milter, plan.milter);
        assert_eq!((read.request, read.changes), (plan.request, plan.changes));
        assert_eq!((read.group, read.access), (plan.group, plan.access));
        assert_eq!(read.address, plan.address);
        assert_eq!(read.bundle, plan.bundle);
        for length in [0, 7, 8, 50, bytes.len() - 1] {
            assert!(Plan::decode(&bytes[..length]).is_err(), "{length}");
        }
    }
}
