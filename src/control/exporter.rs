//! `exporter`: status over HTTP, for Prometheus and for probes. Reads boards like `status`; no process of a milter is involved.
//!
//! One thread and one loop (`serve`): reading a map that may be cut short needs one thread, and a scrape takes less than a millisecond.
//! `ask` is what came, `accept` which form is wanted, `health` what probes get, `answer` what goes back, all pure.
#![forbid(unsafe_code)]

mod accept;
mod answer;
mod ask;
mod connection;
mod health;
mod listen;
mod look;
mod serve;

use std::io;
use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::config::Port;
use crate::sys::{signal, user};

use super::status::PerSlot;
use super::terminal::{complain, say, warn};
use super::{Exit, Place, port_holder, start};

pub use listen::{DEFAULT as DEFAULT_LISTEN, Listen, ListenError};

use look::Boards;

/// What the command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it listens.
    pub listen: Listen,
    /// Whether each slot has series of its own.
    pub per_slot: PerSlot,
}

/// The verb. Returns when TERM, INT or HUP came.
pub fn exporter(place: &Place, options: Options) -> Exit {
    let mut boards = Boards::new(place);
    let signals = match signal::hold(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => {
            complain(format_args!("exporter: cannot wait for signals: {error}"));
            return Exit::Failed;
        }
    };
    let listener = match bind(options.listen) {
        Ok(listener) => listener,
        Err(exit) => return exit,
    };
    if let Err(exit) = become_user(&boards) {
        return exit;
    }
    // Where, also when the kernel chose the port.
    let address = match listener.local_addr() {
        Ok(address) => address,
        Err(error) => {
            complain(format_args!(
                "exporter: the kernel does not tell its address: {error}"
            ));
            return Exit::Failed;
        }
    };
    if !address.ip().is_loopback() {
        warn(format_args!(
            "exporter: anybody who reaches {address} can read the counts; there is no password and no encryption: bind it to 127.0.0.1, or let a firewall choose"
        ));
    }
    say(format_args!("exporter: serving http://{address}/metrics"));
    let respond =
        |ask: &ask::Ask| answer::respond(ask, options.per_slot, |needs| boards.look(needs));
    match serve::serve(listener.into(), &signals, respond) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(format_args!("exporter: it cannot wait for events: {error}"));
            Exit::Failed
        }
    }
}

fn bind(listen: Listen) -> Result<TcpListener, Exit> {
    let address = listen.0;
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        let (exit, next) = match error.kind() {
            io::ErrorKind::AddrInUse => (Exit::Failed, holder(address.port())),
            io::ErrorKind::PermissionDenied => (
                Exit::Permission,
                "ports below 1024 are root's: choose another with --listen".to_owned(),
            ),
            io::ErrorKind::AddrNotAvailable => (
                Exit::Failed,
                "this machine has no such address: see ip address".to_owned(),
            ),
            _ => (Exit::Failed, "choose another with --listen".to_owned()),
        };
        complain(format_args!(
            "exporter: cannot listen on {address}: {error}; {next}"
        ));
        exit
    })
}

/// Who has the port, as far as we can know, and the way out.
fn holder(number: u16) -> String {
    let port = Port::Inet {
        port: number,
        host: String::new(),
    };
    let next = "choose another with --listen";
    match port_holder::of(&port) {
        Some(holder) => format!("it is held by pid {} ({}); {next}", holder.pid, holder.name),
        None => next.to_owned(),
    }
}

/// Root's rights are needed for the port only: what listens to the network must not have them.
fn become_user(boards: &Boards<'_>) -> Result<(), Exit> {
    if user::effective_uid() != 0 {
        return Ok(());
    }
    let Some(config) = boards.config() else {
        complain(
            "exporter: as root it becomes the configuration's user, and the configuration cannot be read; mend it, or run this as the milters' user",
        );
        return Err(Exit::NotConfigured);
    };
    let Some(account) = start::account(config)? else {
        return Ok(());
    };
    user::become_account(&account).map_err(|error| {
        complain(format_args!(
            "exporter: cannot become {}: {error}",
            config.user
        ));
        Exit::Failed
    })
}
