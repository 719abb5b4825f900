//! What a confined process reaches of files, network and other processes: nothing that it does not have open already.
//!
//! A child gets its policy as bytes, its log and its connections as descriptors: it opens nothing, so that nothing is allowed. The checker
//! reads files, which its user's rights bound, and writes none. Best effort: an older kernel refuses less, [`super::sandbox::Walls`] says how much it knows.
#![forbid(unsafe_code)]

use std::io;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

/// Rights to files known when this was written. Not those of later kernels: connecting to a named socket (ABI 9) would be among them, and a
/// child connects anew to a journal that was restarted.
const FILES: ABI = ABI::V6;
/// TCP (ABI 4) and UDP (ABI 10). A connection that the master passed is made already.
const NETWORK: ABI = ABI::V10;
/// Abstract sockets of others, and signals to others (ABI 6).
const OTHERS: ABI = ABI::V6;

/// What is left to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// What it has open.
    None,
    /// It may open and list, too.
    Read,
}

/// Confines this process for good. The caller has one thread; later ones inherit it. False: this kernel has no landlock, and nothing changed.
///
/// # Errors
/// When the kernel has it and refuses.
pub fn enter(files: Files) -> io::Result<bool> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(FILES))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NETWORK)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(OTHERS)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let ruleset = match files {
        Files::None => ruleset,
        Files::Read => {
            let root = PathFd::new("/").map_err(io::Error::other)?;
            let rule = PathBeneath::new(root, AccessFs::ReadFile | AccessFs::ReadDir);
            ruleset.add_rule(rule).map_err(io::Error::other)?
        }
    };
    // Sets no_new_privs as well.
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::net::TcpListener;

    use super::*;
    use crate::sys::sandbox;

    /// Runs on a thread of its own: landlock is its thread's and that of the threads that it makes.
    fn confined<T: Send + 'static>(files: Files, run: fn() -> T) -> T {
        assert!(sandbox::landlock_version() > 0, "this kernel has landlock");
        let thread = std::thread::spawn(move || {
            assert!(enter(files).unwrap());
            run()
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_child_opens_no_file_and_no_port_and_a_checker_reads_only() {
        let opened = || {
            let made = std::env::temp_dir().join(format!("pmx-landlock-{}", std::process::id()));
            [
                fs::read("/etc/passwd").is_ok(),
                fs::read_dir("/etc").is_ok(),
                fs::write(made, "").is_ok(),
                TcpListener::bind("127.0.0.1:0").is_ok(),
            ]
        };
        assert_eq!(confined(Files::None, opened), [false; 4]);
        assert_eq!(confined(Files::Read, opened), [true, true, false, false]);
    }
}
