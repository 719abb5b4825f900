//! Reads a policy from the disk and tries it: what `start`, `restart`, `check`, `try` and `demo` do before anything else.
//!
//! The caller runs it in a process that may come to harm: unprivileged, and with its own time limit.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::bundle::{Bundle, ListFile, Module};
use super::error::PolicyError;
use super::interpreter::Limits;
use super::lists::List;
use super::load::{self, Files};
use super::sandbox::{self, Shared};

/// The largest policy or module.
const MOST_SOURCE_BYTES: usize = 4 << 20;
/// The largest list.
const MOST_LIST_BYTES: usize = 256 << 20;

/// Reads a policy with its modules and lists, compiles it, and runs its top level under `callback_timeout`.
///
/// # Errors
/// All that can be wrong with a policy, with file and line where Lua knows them.
pub fn check_here(path: &Path, limits: &Limits) -> Result<Bundle, PolicyError> {
    let source = read(path, MOST_SOURCE_BYTES)?;
    let reader = Reader {
        policy: path.to_owned(),
        modules: RefCell::default(),
        lists: RefCell::default(),
    };
    let shared = Rc::new(Shared {
        files: Files::Disk(reader),
        loading: std::cell::Cell::new(false),
        current: RefCell::new(None),
    });
    let broken = |error: &mlua::Error| PolicyError::Lua {
        path: path.to_owned(),
        text: load::describe(error),
    };
    let lua = sandbox::make(&shared, limits.memory, 0).map_err(|error| broken(&error))?;
    let wants = load::load(&lua, &shared, path, &source, limits)?.wants;
    let Files::Disk(reader) = &shared.files else {
        return Err(PolicyError::Damaged("no files"));
    };
    Ok(Bundle {
        path: path.to_owned(),
        source,
        modules: reader.modules.take(),
        lists: reader
            .lists
            .take()
            .into_iter()
            .map(|(file, _)| file)
            .collect(),
        wants,
    })
}

/// Files as the top level asks for them; each is read once.
pub(super) struct Reader {
    policy: PathBuf,
    modules: RefCell<Vec<Module>>,
    lists: RefCell<Vec<(ListFile, List)>>,
}

impl Reader {
    pub(super) fn module(&self, name: &str) -> Result<Vec<u8>, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!(
                "\"{name}\" is not a module's name: letters, digits, _ and -; modules lie beside the policy"
            ));
        }
        let path = self
            .policy
            .parent()
            .unwrap_or(Path::new(""))
            .join(format!("{name}.lua"));
        let source = read(&path, MOST_SOURCE_BYTES).map_err(|error| error.to_string())?;
        let module = Module {
            name: name.to_owned(),
            path,
            source: source.clone(),
        };
        let mut modules = self.modules.borrow_mut();
        modules.retain(|other| other.name != name);
        modules.push(module);
        Ok(source)
    }

    pub(super) fn list(&self, path: &[u8]) -> Result<List, String> {
        let path = load::beside(&self.policy, path)?;
        let mut lists = self.lists.borrow_mut();
        if let Some((_, list)) = lists.iter().find(|(file, _)| file.path == path) {
            return Ok(list.clone());
        }
        let bytes = read(&path, MOST_LIST_BYTES).map_err(|error| error.to_string())?;
        let list = List::parse(&bytes);
        lists.push((ListFile { path, bytes }, list.clone()));
        Ok(list)
    }
}

/// The bytes of a regular file, up to a limit.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, PolicyError> {
    let failed = |error| PolicyError::Read {
        path: path.to_owned(),
        error,
    };
    // A FIFO would block the open itself.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > limit {
        return Err(PolicyError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}
