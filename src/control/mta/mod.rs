//! Does the MTA of this machine ask the milters? For `check`: read, compared, told; nothing is changed, and nothing here is an error,
//! for the MTA may be another machine's, or not be set up yet.
#![forbid(unsafe_code)]

mod endpoint;
mod postfix;
mod sendmail;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;

use crate::config::MilterConfig;
use crate::sys::process::PidFd;

use postfix::Postfix;
use sendmail::Sendmail;

/// Where Sendmail keeps both files.
const SENDMAIL: &str = "/etc/mail";
/// postconf(1) reads two files; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// A sendmail.cf has 60 KB.
const MOST_BYTES: u64 = 4 << 20;

/// What is known of the MTAs that are here.
#[derive(Debug)]
pub(super) struct Mtas {
    postfix: Option<Postfix>,
    sendmail: Option<Sendmail>,
}

impl Mtas {
    /// Looks at what is installed and set up.
    pub(super) fn here() -> Mtas {
        let cf = read(&Path::new(SENDMAIL).join("sendmail.cf"));
        let mc = read(&Path::new(SENDMAIL).join("sendmail.mc"));
        Mtas {
            postfix: postconf(&[&["-x"], postfix::PARAMETERS.as_slice()].concat())
                .map(|main| Postfix::parse(&main, &postconf(&["-Px"]).unwrap_or_default())),
            sendmail: (cf.is_some() || mc.is_some())
                .then(|| Sendmail::parse(&cf.unwrap_or_default(), &mc.unwrap_or_default())),
        }
    }

    /// What an operator should know of a milter; nothing on a machine without an MTA.
    pub(super) fn notes(&self, milter: &MilterConfig) -> Vec<String> {
        let postfix = self.postfix.iter();
        let sendmail = self.sendmail.iter();
        postfix
            .flat_map(|mta| mta.notes(&milter.name, &milter.port))
            .chain(sendmail.flat_map(|mta| mta.notes(&milter.name, &milter.port)))
            .collect()
    }
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    // A FIFO would make us wait.
    let file = File::open(path).ok().filter(|_| path.is_file())?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What postconf prints; nothing when Postfix is not here, or not set up.
fn postconf<A: AsRef<OsStr>>(arguments: &[A]) -> Option<String> {
    let mut child = Command::new("postconf")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
    let ended = PidFd::open(pid).is_ok_and(|handle| handle.wait(PATIENCE));
    if !ended {
        // It ends now, or has ended.
        let _ = child.kill();
    }
    let status = child.wait().ok()?;
    let mut output = child.stdout.take().filter(|_| status.success())?;
    // What it printed is in the pipe, which has room for it many times; whoever else holds the other end is not waited for.
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut bytes = Vec::new();
    match output.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => None,
        _ => Some(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
