//! What holds between keys and between milters. A rule is left out when one of its values could not be read.
#![forbid(unsafe_code)]

use super::parse::Draft;
use super::problem::Notes;
use super::{Config, MilterConfig, OverloadAction, Port};

/// Checks every milter, then each against those before it.
pub(super) fn check(milters: &[Draft], notes: &mut Notes) {
    for draft in milters {
        pool(draft, notes);
        interpreters(draft, notes);
        modes(draft, notes);
    }
    ports(milters, notes);
}

fn pool(draft: &Draft, notes: &mut Notes) {
    let MilterConfig {
        name,
        min_pooled_procs: min,
        max_pooled_procs: max,
        ..
    } = &draft.config;
    if !draft.sound("min_pooled_procs") || !draft.sound("max_pooled_procs") {
        return;
    }
    let message = if *max == 0 && *min > 1 {
        format!(
            "milter {name}: min_pooled_procs is {min}, but max_pooled_procs = 0 disables the pool: one process serves all; remove one of the two"
        )
    } else if *max > 0 && min > max {
        format!(
            "milter {name}: min_pooled_procs is {min}, max_pooled_procs only {max}; lower the one or raise the other"
        )
    } else {
        return;
    };
    notes.problem(draft.spot("min_pooled_procs"), message);
}

fn interpreters(draft: &Draft, notes: &mut Notes) {
    let MilterConfig {
        name,
        interpreters,
        preload_interpreters: preload,
        ..
    } = &draft.config;
    let sound = draft.sound("interpreters") && draft.sound("preload_interpreters");
    if sound && preload > interpreters {
        let message = format!(
            "milter {name}: preload_interpreters is {preload}, interpreters only {interpreters}; lower the one or raise the other"
        );
        notes.problem(draft.spot("preload_interpreters"), message);
    }
}

fn modes(draft: &Draft, notes: &mut Notes) {
    let mode = draft.config.status_mode;
    // Whoever may write a board may publish lies in it.
    if draft.sound("status_mode") && mode & 0o022 != 0 {
        let message = format!(
            "milter {}: status_mode {mode:04o} lets others write the scoreboard, but only its milter may; use 0640, or 0644 for everybody",
            draft.config.name
        );
        notes.problem(draft.spot("status_mode"), message);
    }
}

fn ports(milters: &[Draft], notes: &mut Notes) {
    let listens = |draft: &&Draft| {
        draft.config.enabled
            && draft.given.contains_key("port")
            && draft.sound("port")
            && draft.sound("enabled")
    };
    let listening: Vec<&Draft> = milters.iter().filter(listens).collect();
    for (index, draft) in listening.iter().enumerate() {
        let earlier = listening
            .get(..index)
            .unwrap_or_default()
            .iter()
            .find(|other| collide(&other.config.port, &draft.config.port));
        if let Some(other) = earlier {
            let message = format!(
                "milter {} cannot listen on {}: milter {} ({}) has {}; choose another port, or set enabled = false for one of them",
                draft.config.name,
                draft.config.port,
                other.config.name,
                notes.whereabouts(other.spot("port")),
                other.config.port
            );
            notes.problem(draft.spot("port"), message);
        }
    }
}

/// Would the second of these fail to bind? Host names are compared as texts: nothing is looked up.
fn collide(one: &Port, other: &Port) -> bool {
    let every = |host: &str| matches!(host, "0.0.0.0" | "::");
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b) || every(a) || every(b);
    match (one, other) {
        (Port::Unix(one), Port::Unix(other)) => one == other,
        (Port::Inet { port: p, host: a }, Port::Inet { port: q, host: b })
        | (Port::Inet6 { port: p, host: a }, Port::Inet6 { port: q, host: b }) => {
            p == q && same(a, b)
        }
        _ => false,
    }
}

impl Config {
    /// What is allowed but worth a word to the operator, a line each: `check` and `start` print them.
    pub fn warnings(&self) -> Vec<String> {
        self.milters
            .iter()
            .flat_map(MilterConfig::warnings)
            .collect()
    }
}

impl MilterConfig {
    /// See [`Config::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        use super::value::{duration_text, size_text};
        let name = &self.name;
        let mut warnings = Vec::new();
        if let Port::Inet { host, .. } | Port::Inet6 { host, .. } = &self.port
            && matches!(host.as_str(), "0.0.0.0" | "::" | "*")
        {
            warnings.push(format!(
                "milter {name}: port {} takes connections from everywhere, and the milter protocol has no authentication; name one address, such as 127.0.0.1",
                self.port
            ));
        }
        if self.callback_timeout >= self.mta_command_timeout {
            warnings.push(format!(
                "milter {name}: callback_timeout is {}, but the MTA gives up after {} (mta_timeouts); lower the one or raise the other",
                duration_text(self.callback_timeout),
                duration_text(self.mta_command_timeout)
            ));
        }
        if self.message_size_limit > self.interpreter_memory_limit {
            warnings.push(format!(
                "milter {name}: message_size_limit is {}, interpreter_memory_limit only {}: a policy that reads the body of a large message runs out of memory",
                size_text(self.message_size_limit as u64),
                size_text(self.interpreter_memory_limit as u64)
            ));
        }
        let capacity = self
            .child_capacity()
            .map(|child| u64::from(child) * u64::from(self.max_pooled_procs));
        if let (Some(limit), Some(capacity)) = (self.concurrency_limit, capacity)
            && u64::from(limit) > capacity
        {
            warnings.push(format!(
                "milter {name}: concurrency_limit is {limit}, but the pool carries only {capacity} connections (max_pooled_procs x interpreters x interpreter_connections); raise one of these"
            ));
        }
        if self.concurrency_limit.is_none()
            && self.without_pool()
            && self.concurrency_limit_action != OverloadAction::Wait
        {
            warnings.push(format!(
                "milter {name}: concurrency_limit_action has no effect: without a pool there is no limit unless concurrency_limit sets one"
            ));
        }
        warnings
    }
}
