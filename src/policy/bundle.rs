//! What the checker read: the bytes of the policy, its modules and lists, and what it wants of the MTA.
//!
//! Every interpreter is built from exactly these bytes, so that a file changed meanwhile cannot break a child that is forked later. A bundle
//! crosses a pipe from the unprivileged checker: [`Bundle::decode`] believes no length.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::error::PolicyError;
use super::wants::{Collect, Wants};

/// The most that a bundle may hold, encoded: half a gigabyte.
const MOST_BYTES: usize = 512 << 20;
/// The most modules, and the most lists.
const MOST_FILES: usize = 1000;
const MAGIC: &[u8; 8] = b"PMXPOL01";

/// A module beside the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The name that `require` is given.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub source: Vec<u8>,
}

/// A file that `list.load` read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFile {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub bytes: Vec<u8>,
}

/// A policy that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The policy's file.
    pub path: PathBuf,
    /// Its text.
    pub source: Vec<u8>,
    /// The modules that its top level required.
    pub modules: Vec<Module>,
    /// The lists that its top level loaded.
    pub lists: Vec<ListFile>,
    /// What it wants of the MTA.
    pub wants: Wants,
}

impl Bundle {
    /// The policy in bytes, for a pipe.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, self.path.as_os_str().as_bytes());
        put(&mut out, &self.source);
        put_count(&mut out, self.modules.len());
        for module in &self.modules {
            put(&mut out, module.name.as_bytes());
            put(&mut out, module.path.as_os_str().as_bytes());
            put(&mut out, &module.source);
        }
        put_count(&mut out, self.lists.len());
        for list in &self.lists {
            put(&mut out, list.path.as_os_str().as_bytes());
            put(&mut out, &list.bytes);
        }
        let Collect {
            client,
            helo,
            sender,
            recipients,
            headers,
            body,
        } = self.wants.collect;
        let flags = [
            client,
            helo,
            sender,
            recipients,
            headers,
            body,
            self.wants.answer_body,
        ];
        let flags = flags
            .iter()
            .enumerate()
            .fold(0u64, |bits, (bit, set)| bits | (u64::from(*set) << bit));
        out.extend_from_slice(&(flags << 16 | u64::from(self.wants.callbacks)).to_le_bytes());
        for macros in &self.wants.macros {
            out.push(u8::from(macros.is_some()));
            put(&mut out, macros.as_deref().unwrap_or("").as_bytes());
        }
        out
    }

    /// The policy that [`Bundle::encode`] wrote.
    ///
    /// # Errors
    /// [`PolicyError::Damaged`] when the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Bundle, PolicyError> {
        if bytes.len() > MOST_BYTES {
            return Err(PolicyError::Damaged("too long"));
        }
        let mut rest = bytes
            .strip_prefix(MAGIC.as_slice())
            .ok_or(PolicyError::Damaged("not a policy"))?;
        let rest = &mut rest;
        let path = take_path(rest)?;
        let source = take(rest)?.to_vec();
        let mut modules = Vec::new();
        for _ in 0..take_count(rest)? {
            let name = take_text(rest)?;
            modules.push(Module {
                name,
                path: take_path(rest)?,
                source: take(rest)?.to_vec(),
            });
        }
        let mut lists = Vec::new();
        for _ in 0..take_count(rest)? {
            lists.push(ListFile {
                path: take_path(rest)?,
                bytes: take(rest)?.to_vec(),
            });
        }
        let word = take_word(rest)?;
        let flag = |bit: u32| word >> (16 + bit) & 1 == 1;
        let collect = Collect {
            client: flag(0),
            helo: flag(1),
            sender: flag(2),
            recipients: flag(3),
            headers: flag(4),
            body: flag(5),
        };
        // The lower 16 bits: a truncation by design.
        let callbacks = (word & 0xffff) as u16;
        let mut wants = Wants {
            callbacks,
            collect,
            answer_body: flag(6),
            ..Wants::default()
        };
        for macros in &mut wants.macros {
            let (present, after) = rest
                .split_first()
                .ok_or(PolicyError::Damaged("cut short"))?;
            *rest = after;
            let text = take_text(rest)?;
            *macros = (*present == 1).then_some(text);
        }
        if !rest.is_empty() {
            return Err(PolicyError::Damaged("something follows"));
        }
        Ok(Bundle {
            path,
            source,
            modules,
            lists,
            wants,
        })
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u64).to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn take_word(rest: &mut &[u8]) -> Result<u64, PolicyError> {
    let (word, after) = rest
        .split_first_chunk::<8>()
        .ok_or(PolicyError::Damaged("cut short"))?;
    *rest = after;
    Ok(u64::from_le_bytes(*word))
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], PolicyError> {
    let length = usize::try_from(take_word(rest)?).map_err(|_| PolicyError::Damaged("a length"))?;
    let (bytes, after) = rest
        .split_at_checked(length)
        .ok_or(PolicyError::Damaged("cut short"))?;
    *rest = after;
    Ok(bytes)
}

fn take_count(rest: &mut &[u8]) -> Result<usize, PolicyError> {
    let count = usize::try_from(take_word(rest)?).map_err(|_| PolicyError::Damaged("a count"))?;
    if count > MOST_FILES {
        Err(PolicyError::Damaged("a count"))
    } else {
        Ok(count)
    }
}

fn take_path(rest: &mut &[u8]) -> Result<PathBuf, PolicyError> {
    Ok(PathBuf::from(OsString::from_vec(take(rest)?.to_vec())))
}

fn take_text(rest: &mut &[u8]) -> Result<String, PolicyError> {
    String::from_utf8(take(rest)?.to_vec()).map_err(|_| PolicyError::Damaged("a name"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn example() -> Bundle {
        let mut wants = Wants {
            callbacks: 0x0a5a,
            answer_body: true,
            ..Wants::default()
        };
        wants.collect.sender = true;
        wants.macros[5] = Some("i {auth_authen}".into());
        Bundle {
            path: "/etc/pmx/policy.lua".into(),
            source: b"return {}".to_vec(),
            modules: vec![Module {
                name: "m".into(),
                path: "/etc/pmx/m.lua".into(),
                source: vec![0, 255],
            }],
            lists: vec![ListFile {
                path: "/etc/pmx/l.txt".into(),
                bytes: b"a\nb".to_vec(),
            }],
            wants,
        }
    }

    #[test]
    fn a_bundle_survives_the_pipe() {
        assert_eq!(Bundle::decode(&example().encode()).unwrap(), example());
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let whole = example().encode();
        for end in 0..whole.len() {
            assert!(Bundle::decode(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut hostile = whole.clone();
            hostile[at] ^= 0xff;
            let _ = Bundle::decode(&hostile);
        }
        assert!(Bundle::decode(&[whole, vec![0]].concat()).is_err());
    }
}
