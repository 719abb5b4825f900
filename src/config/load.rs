//! Which file is the configuration, and reading it.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use super::parse::{self, MINIMAL};
use super::problem::Problems;
use super::{Config, defaults, include};

/// The environment variable that names the configuration.
const VARIABLE: &str = "PMX_CONF";

/// The configuration when neither `-c` nor `PMX_CONF` names one.
pub fn default_file() -> PathBuf {
    PathBuf::from("/etc/pmx/pmx.conf")
}

/// The configuration's file: `option` (`-c FILE`), else `$PMX_CONF` unless it is empty, else [`default_file`].
pub fn choose(option: Option<&Path>) -> PathBuf {
    option
        .map(Path::to_owned)
        .or_else(from_environment)
        .unwrap_or_else(default_file)
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os(VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

impl Config {
    /// Reads and checks a configuration with all its includes.
    ///
    /// # Errors
    /// Everything that is wrong with it; or that the file cannot be read, how it was chosen, and what to write into it.
    pub fn load(file: &Path) -> Result<Config, Problems> {
        Config::load_for(file, defaults::cpus())
    }

    /// The same for a program that looks at milters and starts none: what follows from the number of processors is as on a machine with
    /// one. Asking for it takes a dozen system calls, a tenth of all that `status` makes.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn glance(file: &Path) -> Result<Config, Problems> {
        Config::load_for(file, 1)
    }

    fn load_for(file: &Path, cpus: u32) -> Result<Config, Problems> {
        let bytes = include::read(file).map_err(|error| Problems::one(unreadable(file, &error)))?;
        parse::parse(&absolute(file), &bytes, cpus)
    }

    /// Checks a configuration that is text already. `file` names it in errors, and relative paths are relative to its directory;
    /// only files named by `include` are read.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse_text(file: &Path, text: &str) -> Result<Config, Problems> {
        parse::parse(&absolute(file), text.as_bytes(), defaults::cpus())
    }
}

/// The `run_dir` of a configuration in which nothing else need be right: `stop` and `status` work with a broken file.
/// `None` if the file or the line cannot be read, or there is no such line.
pub fn run_dir_of(file: &Path) -> Option<PathBuf> {
    parse::run_dir(&absolute(file), &include::read(file).ok()?)
}

/// A process that detaches leaves its directory: no path may depend on it.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    let chosen = if from_environment().is_some_and(|named| named == file) {
        format!("${VARIABLE} names it")
    } else if file == default_file() {
        format!("it is the default; -c FILE or ${VARIABLE} names another")
    } else {
        "-c names it".to_owned()
    };
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    };
    let next = match error.kind() {
        io::ErrorKind::NotFound => format!("\nThe least that it must hold is:\n{MINIMAL}"),
        io::ErrorKind::PermissionDenied => {
            "; run this as root or as the user of the milters, or let this user read it".to_owned()
        }
        _ => String::new(),
    };
    format!(
        "cannot read the configuration {}: {reason} ({chosen}){next}",
        file.display()
    )
}
