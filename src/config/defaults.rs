//! What holds when a key is absent: the table's values, and those that depend on the machine or on other keys.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::assign::assign;
use super::keys::{KEYS, KeyDefault};
use super::parse::Draft;
use super::value::Raw;
use super::{LogLevel, LogTo, MilterConfig, OverloadAction, Port};

/// A milter of which nothing is written, as the table of keys has it.
pub(super) fn defaults(folder: &Path) -> MilterConfig {
    let nothing = Duration::ZERO;
    let mut config = MilterConfig {
        // Name, port and policy are required: these never get out.
        name: "_".parse().expect("_ is a name"),
        port: Port::Unix(PathBuf::new()),
        policy: PathBuf::new(),
        // Every other value comes from the table of keys, or from `fill`.
        enabled: true,
        max_pooled_procs: 0,
        min_pooled_procs: 0,
        pooled_proc_idle_limit: nothing,
        pooled_proc_connect_limit: 0,
        pooled_proc_message_limit: 0,
        pooled_proc_age_limit: nothing,
        pooled_proc_rss_limit: 0,
        interpreters: 0,
        interpreter_connections: 0,
        preload_interpreters: 0,
        reinit_limit: 0,
        interpreter_memory_limit: 0,
        callback_timeout: nothing,
        eom_timeout: nothing,
        message_size_limit: 0,
        socket_mode: 0,
        socket_owner: None,
        socket_group: None,
        status_mode: 0,
        status_group: None,
        redact: false,
        sandbox: true,
        mta_command_timeout: nothing,
        mta_content_timeout: nothing,
        concurrency_limit: None,
        concurrency_limit_action: OverloadAction::Wait,
        listen_queue_size: 0,
        timeout: nothing,
        graceful_timeout: nothing,
        start_timeout: nothing,
        umask: 0,
        log_to: LogTo::Journal,
        log_level: LogLevel::Info,
        log_utc: false,
        message_log: false,
    };
    for key in KEYS {
        if let KeyDefault::Value(text) = key.default {
            assign(&mut config, key, &Raw::of_default(text), folder)
                .expect("a test reads every default of the table");
        }
    }
    config
}

/// Processors that this process may use, at most 256: what `max_pooled_procs` and `interpreters` follow.
pub(super) fn cpus() -> u32 {
    std::thread::available_parallelism()
        .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
        .min(256)
}

/// The defaults that depend on the machine, which has `cpus` processors, or on other keys.
pub(super) fn fill(draft: &mut Draft, cpus: u32) {
    if !draft.given.contains_key("max_pooled_procs") {
        draft.config.max_pooled_procs = cpus.max(2).max(draft.config.min_pooled_procs);
    }
    if !draft.given.contains_key("interpreters") {
        let usual = if draft.config.without_pool() { cpus } else { 1 };
        draft.config.interpreters = usual.max(draft.config.preload_interpreters);
    }
}
