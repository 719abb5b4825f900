//! Where a verb works: which configuration, which run directory, which milters.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::config::{self, Config, MilterName};

use super::terminal::{complain, warn};
use super::{Exit, running};

/// The run directory when no configuration tells another.
const DEFAULT_RUN_DIR: &str = "/run/pmx";

/// What the command line says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `-c`, `$PMX_CONF` or the default.
    pub config_file: PathBuf,
    /// `--run-dir`
    pub run_dir: Option<PathBuf>,
}

/// What `stop` and `status` know: they work without a configuration too.
#[derive(Debug)]
pub(super) struct Found {
    /// Where the milters' files are.
    pub(super) run_dir: PathBuf,
    /// The configuration, if it can be read.
    pub(super) config: Option<Config>,
}

impl Place {
    /// With the defaults for what was not given.
    pub fn new(config_file: Option<&Path>, run_dir: Option<PathBuf>) -> Place {
        let given = |dir: &PathBuf| !dir.as_os_str().is_empty();
        // A master leaves its directory.
        let absolute = |dir: PathBuf| std::path::absolute(&dir).unwrap_or(dir);
        Place {
            config_file: config::choose(config_file),
            run_dir: run_dir.filter(given).map(absolute),
        }
    }

    /// The configuration with `--run-dir` applied; its problems are told.
    ///
    /// # Errors
    /// [`Exit::NotConfigured`]
    pub(super) fn config(&self) -> Result<Config, Exit> {
        match Config::load(&self.config_file) {
            Ok(mut config) => {
                if let Some(run_dir) = &self.run_dir {
                    config.run_dir.clone_from(run_dir);
                }
                Ok(config)
            }
            Err(problems) => {
                complain(format_args!("{problems}"));
                Err(Exit::NotConfigured)
            }
        }
    }

    /// For the verbs that a broken configuration must not disable: it is told as a warning.
    pub(super) fn find(&self) -> Found {
        let (found, problems) = self.look();
        problems.iter().for_each(warn);
        found
    }

    /// The same, with what is wrong with the configuration.
    pub(super) fn look(&self) -> (Found, Option<String>) {
        let (config, problems) = match Config::glance(&self.config_file) {
            Ok(config) => (Some(config), None),
            Err(problems) => (None, Some(problems.to_string())),
        };
        let run_dir = self
            .run_dir
            .clone()
            .or_else(|| config.as_ref().map(|config| config.run_dir.clone()))
            .or_else(|| config::run_dir_of(&self.config_file))
            .unwrap_or_else(|| PathBuf::from(DEFAULT_RUN_DIR));
        (Found { run_dir, config }, problems)
    }
}

/// The names as given, each once.
pub(super) fn each_once(names: &[MilterName]) -> Vec<MilterName> {
    let mut all: Vec<MilterName> = Vec::with_capacity(names.len());
    for name in names {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    all
}

/// Milters in the run directory that have a master or children now.
///
/// # Errors
/// When the run directory cannot be read; told.
pub(super) fn running_in(run_dir: &Path) -> Result<Vec<MilterName>, Exit> {
    let names = crate::run_dir::milters(run_dir).map_err(|error| {
        complain(format_args!(
            "cannot read run_dir {}: {error}; run this as the milters' user or as root",
            run_dir.display()
        ));
        Exit::Permission
    })?;
    Ok(names
        .into_iter()
        .filter(|name| running::is_there(&crate::run_dir::Paths::new(run_dir, name)))
        .collect())
}

/// The sentence for a name that the configuration does not have.
pub(super) fn not_configured(verb: &str, name: &MilterName, config: &Config) -> String {
    let known: Vec<String> = config.milters.iter().map(|m| m.name.to_string()).collect();
    let known = if known.is_empty() {
        "it has none".to_owned()
    } else {
        format!("it has {}", known.join(", "))
    };
    format!(
        "{verb} {name}: there is no milter of this name in {}; {known}",
        config.file.display()
    )
}
