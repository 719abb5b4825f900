//! The command line: arguments become one options struct a verb, so that mixes that make no sense cannot be built. Wrong arguments end
//! with status 2; the signal of `stop` is taken out first (`-9` is no option).
#![forbid(unsafe_code)]

mod plugin;
mod quick;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::MilterName;
use crate::control::status::{self, Format, PerSlot, Show, Syntax, Threshold, Thresholds};
use crate::control::try_policy::Options;
use crate::control::{
    self, AsRoot, Exit, Launch, MasterMain, Place, StopSignal, check, demo, exporter, help,
    restart, run, start, stop, top, try_restart,
};

/// Which program this is: `0.1.0 (1a2b3c4d5e6f)`, the commit it was built from (see build.rs).
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PMX_BUILD"), ")");

/// Starts, stops, restarts and shows the milters of Postfix and Sendmail
#[derive(Debug, Parser)]
#[command(
    name = "pmx-milter",
    version = VERSION,
    disable_help_subcommand = true,
    propagate_version = true,
    max_term_width = 80,
    after_help = "Example: pmx-milter start && pmx-milter status; the manual: pmx-milter help"
)]
pub struct PmxMilter {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Starts, stops, restarts and shows milters from init scripts: prepares
/// run_dir as root, then becomes `user`
#[derive(Debug, Parser)]
#[command(
    name = "pmx-init",
    version = VERSION,
    disable_help_subcommand = true,
    propagate_version = true,
    max_term_width = 80,
    after_help = "Example: pmx-init start\nThe whole manual: pmx-init help"
)]
pub struct PmxInit {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    verb: InitVerb,
}

#[derive(Args, Debug)]
struct PlaceArgs {
    /// Instead of $PMX_CONF and of /etc/pmx/pmx.conf
    #[arg(short = 'c', value_name = "FILE", global = true, display_order = 100)]
    config: Option<PathBuf>,
    /// Instead of the configuration's run_dir
    #[arg(long, value_name = "DIR", global = true, display_order = 101)]
    run_dir: Option<PathBuf>,
}

impl From<PlaceArgs> for Place {
    fn from(args: PlaceArgs) -> Place {
        Place::new(args.config.as_deref(), args.run_dir)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts milters and returns when they serve
    #[command(after_help = "Example: pmx-milter start policy")]
    Start(StartArgs),
    /// Stops milters and returns when they are gone
    #[command(
        override_usage = "pmx-milter [-c FILE] stop [-SIGNAL] [MILTER]...",
        after_help = STOP_HELP
    )]
    Stop(StopArgs),
    /// Checks everything, then restarts milters
    #[command(
        visible_alias = "reload",
        after_help = "Example: pmx-milter restart policy"
    )]
    Restart(RestartArgs),
    /// Shows milters at once, without asking them
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Shows one milter live in the terminal: slots, rates, latencies
    #[command(after_help = "The key h shows the others.\n\nExample: pmx-milter top policy")]
    Top(TopArgs),
    /// Serves the numbers to Prometheus, and health to probes, over HTTP
    #[command(after_help = EXPORTER_HELP)]
    Exporter(ExporterArgs),
    /// Checks configuration and policies; every problem in one run
    #[command(after_help = "Example: pmx-milter -c ./pmx.conf check")]
    Check(CheckArgs),
    /// Runs a policy over message files, without an MTA
    #[command(after_help = "Example: pmx-milter try policy.lua message.eml")]
    Try(TryArgs),
    /// Runs one milter in the foreground, for systemd
    #[command(after_help = "Example: pmx-milter run policy")]
    Run(RunArgs),
    /// Shows a throw-away milter at work, then its status
    #[command(after_help = "Example: pmx-milter demo")]
    Demo,
    /// Shows the manual page
    #[command(after_help = "Example: pmx-milter help")]
    Help,
}

#[derive(Debug, Subcommand)]
enum InitVerb {
    /// Prepares run_dir, then starts milters as the configured user
    #[command(after_help = "Example: pmx-init start")]
    Start(StartArgs),
    /// Stops milters and returns when they are gone
    #[command(
        override_usage = "pmx-init [-c FILE] stop [-SIGNAL] [MILTER]...",
        after_help = STOP_HELP
    )]
    Stop(StopArgs),
    /// Checks everything, then restarts milters
    #[command(visible_alias = "reload", after_help = "Example: pmx-init restart")]
    Restart(RestartArgs),
    /// Restarts milters that run, starts none
    #[command(
        visible_alias = "force-reload",
        after_help = "Example: pmx-init try-restart"
    )]
    TryRestart(TryRestartArgs),
    /// Shows milters at once, without asking them
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Shows the manual page
    #[command(after_help = "Example: pmx-init help")]
    Help,
}

const EXPORTER_HELP: &str = "\
Paths: /metrics, /healthz, /readyz; /healthz/NAME and /readyz/NAME of one milter.
It reads the boards like status, and ends with 0 on TERM and INT.

Example: pmx-milter exporter --listen 127.0.0.1:9366";

const STOP_HELP: &str = "\
SIGNAL is one of these, with or without SIG, in any case, anywhere after stop:
  -HUP  (-1)    the default: connections in progress finish (graceful_timeout)
  -TERM (-15)   the same
  -INT  (-2)    connections are aborted, everything is cleaned up
  -KILL (-9)    master and children are gone at once
Note that HUP stops a milter, while other daemons reload on it.

Example: pmx-milter stop -INT policy";

const STATUS_HELP: &str = "\
With nagios, -c FILE stands before status: after it, -c is --critical.

Example: pmx-milter status --format nagios -w busy=80 -c busy=95";

#[derive(Args, Debug)]
struct StartArgs {
    /// Milters, disabled ones too; without names every enabled one
    #[arg(value_name = "MILTER")]
    milters: Vec<MilterName>,
}

#[derive(Args, Debug)]
struct StopArgs {
    /// Milters; without names every running one
    #[arg(value_name = "MILTER")]
    milters: Vec<MilterName>,
}

#[derive(Args, Debug)]
struct RestartArgs {
    /// Milters; without names every running one, and if none runs every enabled one
    #[arg(value_name = "MILTER")]
    milters: Vec<MilterName>,
}

#[derive(Args, Debug)]
struct TryRestartArgs {
    /// Milters; without names every one
    #[arg(value_name = "MILTER")]
    milters: Vec<MilterName>,
}

#[derive(Args, Debug)]
struct StatusArgs {
    /// Milters; without names every running and every enabled one
    #[arg(value_name = "MILTER")]
    milters: Vec<MilterName>,
    /// text (default), json, openmetrics, prometheus, nagios
    #[arg(long, value_enum, default_value_t = FormatArg::Text, hide_possible_values = true, hide_default_value = true)]
    format: FormatArg,
    /// Work in hand, times, losses, deaths; JSON has them
    #[arg(long)]
    long: bool,
    /// The last ten minutes and the last events
    #[arg(long)]
    history: bool,
    /// Again and again, until Ctrl-C
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<Duration>,
    /// Each slot too, with openmetrics and prometheus
    #[arg(long)]
    per_slot: bool,
    /// Only the names of all milters, for scripts
    #[arg(long, conflicts_with_all = ["milters", "format", "long", "history", "watch", "per_slot"])]
    names: bool,
    /// With nagios: WARNING outside of [METRIC=]RANGE
    #[arg(short = 'w', long, value_name = "RANGE", allow_hyphen_values = true)]
    warning: Vec<Threshold>,
    /// With nagios: CRITICAL outside of [METRIC=]RANGE
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    critical: Vec<Threshold>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    // No doc comments: they would stretch the help beyond one screen. The manual explains them.
    Text,
    Json,
    Openmetrics,
    Prometheus,
    Nagios,
}

#[derive(Args, Debug)]
struct TopArgs {
    /// Milters, one shown at a time; without names every running and every enabled one
    #[arg(value_name = "MILTER")]
    milters: Vec<MilterName>,
    /// Between two looks
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    interval: Duration,
    /// Prints one picture as plain text, of the size that COLUMNS and LINES tell
    #[arg(long)]
    once: bool,
}

#[derive(Args, Debug)]
struct ExporterArgs {
    /// Numeric address and port; a port alone is on 127.0.0.1
    #[arg(long, value_name = "ADDRESS", default_value = exporter::DEFAULT_LISTEN)]
    listen: exporter::Listen,
    /// Each slot too
    #[arg(long)]
    per_slot: bool,
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// Prints the effective configuration, defaults filled in, as TOML
    #[arg(long)]
    dump: bool,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// The milter
    #[arg(value_name = "MILTER")]
    milter: MilterName,
}

#[derive(Args, Debug)]
struct TryArgs {
    /// The policy
    #[arg(value_name = "POLICY")]
    policy: PathBuf,
    /// Messages; without files one from the standard input
    #[arg(value_name = "FILE.eml")]
    files: Vec<PathBuf>,
    /// Envelope sender; otherwise the address in From:
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// Envelope recipient, as often as needed; otherwise the addresses in To:
    #[arg(long, value_name = "ADDRESS")]
    recipient: Vec<String>,
    /// Name that the SMTP client gives in HELO
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// Address of the SMTP client
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// Host name of the SMTP client
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl From<TryArgs> for (PathBuf, Options) {
    fn from(args: TryArgs) -> (PathBuf, Options) {
        let options = Options {
            files: args.files,
            sender: args.sender,
            recipients: args.recipient,
            helo: args.helo,
            client: args.client,
            host: args.host,
            ..Options::default()
        };
        (args.policy, options)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.1..=86_400.0).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err("give seconds from 0.1 to 86400".to_owned()),
    }
}

/// The program `pmx-milter`; `main` hands over the entry of masters.
pub fn pmx_milter(master: MasterMain) -> ExitCode {
    control::get_ready();
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(quick) = quick::status(&given) {
        let place = Place::new(quick.config.as_deref(), None);
        let show = Show::new(Format::Text);
        return ExitCode::from(status::status(&place, &quick.milters, &show));
    }
    let (PmxMilter { place, verb }, signal) = match arguments("pmx-milter") {
        Ok(both) => both,
        Err(exit) => return exit,
    };
    let place = Place::from(place);
    let launch = Launch {
        main: master,
        as_root: AsRoot::MasterStays,
    };
    match verb {
        Verb::Start(args) => code(start::start(&place, &args.milters, launch)),
        Verb::Stop(args) => code(stop::stop(&place, &args.milters, signal)),
        Verb::Restart(args) => code(restart::restart(&place, &args.milters, launch)),
        Verb::Status(args) => show(&place, args),
        Verb::Top(TopArgs {
            milters,
            interval,
            once,
        }) => code(top::top(&place, &milters, top::Options { interval, once })),
        Verb::Exporter(ExporterArgs { listen, per_slot }) => {
            let per_slot = slots(per_slot);
            let options = exporter::Options { listen, per_slot };
            code(exporter::exporter(&place, options))
        }
        Verb::Check(args) => code(check::check(&place, args.dump)),
        Verb::Try(args) => {
            let (policy, options) = args.into();
            code(control::try_policy(&place, &policy, &options))
        }
        Verb::Run(args) => code(run::run(&place, &args.milter, master)),
        Verb::Demo => code(demo::demo(master)),
        Verb::Help => code(help::help(help::PMX_MILTER)),
    }
}

/// The program `pmx-init`.
pub fn pmx_init(master: MasterMain) -> ExitCode {
    control::sign_as("pmx-init");
    let (PmxInit { place, verb }, signal) = match arguments("pmx-init") {
        Ok(both) => both,
        Err(exit) => return exit,
    };
    let place = Place::from(place);
    let launch = Launch {
        main: master,
        as_root: AsRoot::BecomeUser,
    };
    match verb {
        InitVerb::Start(args) => code(start::start(&place, &args.milters, launch)),
        InitVerb::Stop(args) => code(stop::stop(&place, &args.milters, signal)),
        InitVerb::Restart(args) => code(restart::restart(&place, &args.milters, launch)),
        InitVerb::TryRestart(args) => code(try_restart::try_restart(&place, &args.milters, launch)),
        InitVerb::Status(args) => show(&place, args),
        InitVerb::Help => code(help::help(help::PMX_INIT)),
    }
}

/// Both programs as their option parsers know them: the manual's test compares.
pub fn commands() -> [clap::Command; 2] {
    [PmxMilter::command(), PmxInit::command()]
}

fn arguments<P: Parser>(program: &str) -> Result<(P, StopSignal), ExitCode> {
    let (mut args, signal) =
        control::take_signal(std::env::args_os().collect()).map_err(|error| {
            eprintln!("{program}: {error}");
            code(Exit::Usage)
        })?;
    let is_plugin = plugin::adapt(&mut args);
    match P::try_parse_from(args) {
        Ok(parsed) => Ok((parsed, signal)),
        Err(error) if is_plugin => Err(ExitCode::from(plugin::refuse(&error))),
        Err(error) => error.exit(),
    }
}

fn show(place: &Place, args: StatusArgs) -> ExitCode {
    if args.names {
        return code(status::names(place));
    }
    let milters = args.milters.clone();
    let is_plugin = args.format == FormatArg::Nagios;
    match Show::try_from(args) {
        Ok(show) => ExitCode::from(status::status(place, &milters, &show)),
        Err(why) if is_plugin => ExitCode::from(plugin::refuse(&conflict(why))),
        Err(why) => conflict(why).exit(),
    }
}

fn conflict(why: &str) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, format!("{why}\n"))
}

impl TryFrom<StatusArgs> for Show {
    type Error = &'static str;

    /// The format with what belongs to it; what belongs to another is refused, for it would silently do nothing.
    fn try_from(args: StatusArgs) -> Result<Show, &'static str> {
        let per_slot = slots(args.per_slot);
        let limits = !args.warning.is_empty() || !args.critical.is_empty();
        let format = match args.format {
            FormatArg::Text => Format::Text,
            FormatArg::Json => Format::Json,
            FormatArg::Openmetrics => Format::Exposition(Syntax::OpenMetrics, per_slot),
            FormatArg::Prometheus => Format::Exposition(Syntax::Prometheus, per_slot),
            FormatArg::Nagios => Format::Nagios(Thresholds {
                warning: args.warning,
                critical: args.critical,
            }),
        };
        if limits && !matches!(format, Format::Nagios(_)) {
            return Err("--warning and --critical go with --format nagios");
        }
        if args.per_slot && !matches!(format, Format::Exposition(..)) {
            return Err("--per-slot goes with --format openmetrics and --format prometheus");
        }
        if args.watch.is_some() && !matches!(format, Format::Text | Format::Json) {
            return Err("--watch goes with --format text and --format json");
        }
        if (args.long || args.history) && !matches!(format, Format::Text | Format::Json) {
            return Err("--long and --history go with --format text and --format json");
        }
        Ok(Show {
            format,
            long: args.long,
            history: args.history,
            watch: args.watch,
        })
    }
}

fn slots(wanted: bool) -> PerSlot {
    if wanted { PerSlot::Yes } else { PerSlot::No }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.code())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_option_parsers_are_sound_and_every_verb_has_an_example() {
        for command in commands() {
            command.clone().debug_assert();
            for verb in command.get_subcommands() {
                let help = verb.get_after_help().unwrap().to_string();
                assert!(help.contains("Example: pmx-"), "{}", verb.get_name());
            }
        }
    }

    #[test]
    fn every_help_fits_a_screen_of_80_by_24() {
        for command in commands() {
            let command = command.term_width(80);
            let name = command.get_name().to_owned();
            let help = |line: &str| {
                let asked = command.clone().try_get_matches_from(line.split(' '));
                (line.to_owned(), asked.unwrap_err().to_string())
            };
            let mut helps = vec![help(&format!("{name} --help"))];
            for verb in command.get_subcommands() {
                helps.push(help(&format!("{name} {} --help", verb.get_name())));
            }
            for (name, help) in helps {
                let widest = help.lines().map(str::len).max();
                let size = (help.lines().count(), widest.unwrap());
                assert!(size.0 <= 24 && size.1 <= 80, "{name} {size:?}\n{help}");
            }
        }
    }

    #[test]
    fn the_configuration_may_stand_before_and_after_the_verb() {
        for line in [
            "p -c f --run-dir /d status a",
            "p status a -c f --run-dir /d",
            "p --run-dir=/d status -c f a",
        ] {
            let parsed = PmxMilter::try_parse_from(line.split(' ')).unwrap();
            let place = Place::from(parsed.place);
            assert_eq!(place, Place::new(Some("f".as_ref()), Some("/d".into())));
            assert!(matches!(parsed.verb, Verb::Status(args) if args.milters.len() == 1));
        }
    }

    #[test]
    fn wrong_arguments_are_status_2() {
        for line in [
            "p",
            "p nonsense",
            "p start ../x",
            "p status --format xml",
            "p status --watch 0",
            "p run",
            "p run a b",
            "p help start",
            "p start -9",
        ] {
            let error = PmxMilter::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn reload_is_restart() {
        let parsed = PmxMilter::try_parse_from(["p", "reload", "a"]).unwrap();
        assert!(matches!(parsed.verb, Verb::Restart(_)));
    }
}
