//! `pmx-milter [-c FILE] status [MILTER...]`, the call of monitoring scripts, without building the option parser: that costs as much as the
//! rest of the program. Whatever else stands there is the option parser's.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::MilterName;

/// A plain status call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Quick {
    pub(super) config: Option<PathBuf>,
    pub(super) milters: Vec<MilterName>,
}

/// Reads the arguments behind the program's name. `None`: something else than a plain status call.
pub(super) fn status(arguments: &[OsString]) -> Option<Quick> {
    let (config, rest) = match arguments {
        [option, file, rest @ ..] if option == "-c" => (Some(PathBuf::from(file)), rest),
        rest => (None, rest),
    };
    let (verb, names) = rest.split_first()?;
    if verb != "status" {
        return None;
    }
    // A name cannot begin with a dash: options go to the option parser.
    let name = |name: &OsString| name.to_str()?.parse().ok();
    Some(Quick {
        config,
        milters: names.iter().map(name).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::super::{PmxMilter, Verb};
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_plain_call_means_what_the_option_parser_says() {
        for text in [
            "status",
            "status a",
            "status a b.c",
            "-c /x/y status",
            "-c x status a",
        ] {
            let quick = status(&words(text)).unwrap();
            let all = std::iter::once("pmx-milter").chain(text.split(' '));
            let parsed = PmxMilter::try_parse_from(all).unwrap();
            let Verb::Status(args) = parsed.verb else {
                panic!("{text}: another verb");
            };
            assert_eq!(quick.config, parsed.place.config, "{text}");
            assert_eq!(quick.milters, args.milters, "{text}");
            assert!(parsed.place.run_dir.is_none() && !args.long && args.watch.is_none());
        }
    }

    #[test]
    fn everything_else_is_left_to_the_option_parser() {
        for text in [
            "",
            "start",
            "status --long",
            "status -c x",
            "status a/b",
            "status -h",
            "-c status",
            "--run-dir x status",
            "-c x",
        ] {
            assert_eq!(status(&words(text)), None, "{text}");
        }
    }
}
