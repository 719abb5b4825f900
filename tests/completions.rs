//! The shells' completions in `dist/completions` are those of the option parsers, and every shell that is here can read its own.
//!
//! After a change of the command line: `UPDATE_COMPLETIONS=1 cargo test --test completions`.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_complete::{Shell, generate};
use pmx_milter::cli;
use pmx_milter::control::STOP_SIGNALS;

use support::SOON;
use support::command::run;
use support::milter::{ADDS_A_HEADER, Milter, PROGRAM};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Where the completions of a program for a shell are: by the names that packages give them.
fn path(program: &str, shell: Shell) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/completions");
    match shell {
        Shell::Zsh => dir.join("zsh").join(format!("_{program}")),
        Shell::Fish => dir.join("fish").join(format!("{program}.fish")),
        _ => dir.join("bash").join(program),
    }
}

/// What the generator cannot know: names of milters come from the program, which knows the configuration, and a signal of `stop` is no
/// option of the parser.
fn with_names(text: &str, program: &str, shell: Shell) -> String {
    match shell {
        Shell::Bash => in_bash(text, program),
        Shell::Zsh => in_zsh(text),
        _ => in_fish(text, program),
    }
}

const BASH_NAMES: &str = r#"# A word as it was typed, without its quotes, in REPLY.
_pmx_unquoted() {
    local word=${1/#\~/$HOME}
    case $word in
        \'*) word=${word#?} REPLY=${word%\'} ;;
        \"*) word=${word#?} REPLY=${word%\"} ;;
        # Without -r it takes backslashes away.
        *) IFS= read REPLY <<<"$word" ;;
    esac
}

_pmx_milters() {
    local i word verb= given=() REPLY
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
            -c|--run-dir)
                # The shell makes three words of --run-dir=DIR.
                [[ $word == --run-dir && ${COMP_WORDS[i+1]} == = ]] && ((i++))
                ((++i < COMP_CWORD)) || break
                # After status it is a threshold.
                [[ $word$verb == -cstatus ]] && continue
                _pmx_unquoted "${COMP_WORDS[i]}"
                given+=("$word" "$REPLY")
                ;;
            --run-dir=*)
                _pmx_unquoted "${word#*=}"
                given+=(--run-dir "$REPLY")
                ;;
            -*) ;;
            *) verb=${verb:-$word} ;;
        esac
    done
    _pmx_unquoted "${COMP_WORDS[0]}"
    "$REPLY" "${given[@]}" status --names 2>/dev/null
}

"#;

fn in_bash(text: &str, program: &str) -> String {
    // The generator sets `cmd` to one spelling and compares it with another when the program's name has a dash.
    let text = text.replace(
        &format!("{}__subcmd__", program.replace('-', "__subcmd__")),
        &format!("{}__subcmd__", program.replace('-', "__")),
    );
    let mut lines = Vec::new();
    let mut case = String::new();
    for line in text.lines() {
        if let Some((_, verb)) = line.trim().trim_end_matches(')').rsplit_once("__subcmd__") {
            case = verb.replace("__", "-");
        }
        let line = match line.strip_suffix('"') {
            Some(start) if line.trim().starts_with("opts=\"-") && takes_names(program, &case) => {
                let signals = signals().map(|(name, _)| format!(" -{name}"));
                let signals: String = signals.filter(|_| case == "stop").collect();
                format!("{start}{signals} $(_pmx_milters)\"")
            }
            _ => line.to_owned(),
        };
        lines.push(line);
    }
    BASH_NAMES.to_owned() + &lines.join("\n") + "\n"
}

/// Verbs after which names of milters stand, aliases too.
fn verbs_with_names(program: &str) -> Vec<String> {
    let takes = |verb: &clap::Command| {
        let names = |it: &clap::Arg| Some(it.get_value_names()?.first()?.as_str() == "MILTER");
        verb.get_positionals().any(|it| names(it) == Some(true))
    };
    let command = cli::commands()
        .into_iter()
        .find(|it| it.get_name() == program);
    let command = command.unwrap();
    let verbs = command.get_subcommands().filter(|verb| takes(verb));
    verbs
        .flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_visible_aliases()))
        .map(str::to_owned)
        .collect()
}

fn takes_names(program: &str, verb: &str) -> bool {
    verbs_with_names(program).iter().any(|it| it == verb)
}

const ZSH_NAMES: &str = r#"(( $+functions[_pmx_milters] )) ||
_pmx_milters() {
    local -a typed given names
    local i first word verb
    # The words of the line: those of the completion have lost what stands before the verb. Other commands may stand before.
    typed=(${(z)LBUFFER})
    first=${typed[(i)*pmx-(milter|init)]}
    ((first <= $#typed)) || return 1
    for ((i = first + 1; i < $#typed; i++)); do
        word=${(Q)typed[i]}
        case $word in
            -c|--run-dir)
                ((i++))
                # After status it is a threshold.
                [[ $word$verb = -cstatus ]] && continue
                given+=($word ${${(Q)typed[i]}/#\~/$HOME})
                ;;
            --run-dir=*) given+=(--run-dir ${${word#*=}/#\~/$HOME}) ;;
            -*) ;;
            *) verb=${verb:-$word} ;;
        esac
    done
    # What it calls is read by the shell once more.
    names=(${(f)"$(_call_program milters ${(q)${${(Q)typed[first]}/#\~/$HOME}} ${(q)given} status --names 2>/dev/null)"})
    compadd -a names
}

"#;

fn in_zsh(text: &str) -> String {
    let mut out = String::new();
    let mut stops = false;
    for line in text.lines() {
        let is_name = line.contains(":milters -- ") || line.contains(":milter -- ");
        let line = match is_name {
            true => line.replace(":_default", ":_pmx_milters"),
            false => line.to_owned(),
        };
        if line.starts_with("_pmx-") && line.ends_with("() {") && !out.contains(ZSH_NAMES) {
            // Before the function itself, and its guard.
            let guard = out
                .rfind("(( $+functions")
                .filter(|at| !out[*at..].contains('}'));
            let at = guard.unwrap_or(out.len());
            out.insert_str(at, ZSH_NAMES);
        }
        out += &line;
        out.push('\n');
        if line.starts_with('(') {
            stops = line == "(stop)";
        } else if stops && line.starts_with("_arguments") {
            for (name, about) in signals() {
                out += &format!("'-{name}[{about}]' \\\n");
            }
        }
    }
    out
}

fn in_fish(text: &str, program: &str) -> String {
    let function = program.replace('-', "_");
    let mut out = format!(
        "{text}
# Names of milters, as the program knows them.
function __fish_{function}_names
    set -l tokens (commandline -opc)
    set -l given
    set -l verb
    set -l i 2
    while test $i -le (count $tokens)
        set -l word $tokens[$i]
        switch $word
            case -c --run-dir
                set i (math $i + 1)
                # After status it is a threshold.
                test \"$word$verb\" = -cstatus
                or set -a given $word (string replace -r '^~' $HOME -- $tokens[$i])
            case '--run-dir=*'
                set -a given (string replace -r '=~' =$HOME -- $word)
            case '-*'
            case '*'
                test -n \"$verb\"
                or set verb $word
        end
        set i (math $i + 1)
    end
    $tokens[1] $given status --names 2>/dev/null
end

"
    );
    let using = format!("complete -c {program} -n \"__fish_{function}_using_subcommand");
    let verbs = verbs_with_names(program).join(" ");
    out += &format!("{using} {verbs}\" -f -a \"(__fish_{function}_names)\"\n");
    for (name, about) in signals() {
        out += &format!("{using} stop\" -f -a \"-{name}\" -d '{about}'\n");
    }
    out
}

/// Signals of `stop` and what they do.
fn signals() -> impl Iterator<Item = (&'static str, &'static str)> {
    STOP_SIGNALS.iter().map(|(name, ..)| match *name {
        "HUP" | "TERM" => (*name, "connections in progress finish"),
        "INT" => (*name, "connections are aborted"),
        "KILL" => (*name, "master and children are gone at once"),
        other => panic!("say what {other} does"),
    })
}

/// Every file and what should be in it.
fn completions() -> Vec<(PathBuf, Shell, String)> {
    let mut all = Vec::new();
    for command in cli::commands() {
        let program = command.get_name().to_owned();
        for shell in SHELLS {
            let mut text = Vec::new();
            generate(shell, &mut command.clone(), &program, &mut text);
            let text = with_names(&String::from_utf8(text).unwrap(), &program, shell);
            all.push((path(&program, shell), shell, text));
        }
    }
    all
}

#[test]
fn the_completions_that_are_shipped_are_those_of_the_program() {
    for (path, _, text) in completions() {
        if std::env::var_os("UPDATE_COMPLETIONS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let shipped = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            shipped == text,
            "{} is not what the program would complete; make it anew: UPDATE_COMPLETIONS=1 cargo test --test completions",
            path.display()
        );
    }
}

/// Has this shell read the file without a complaint? Nothing when the shell is not here.
fn reads(shell: Shell, path: &Path) -> Option<String> {
    let output = Command::new(shell.to_string()).arg("-n").arg(path).output();
    match output {
        Ok(output) if output.status.success() => Some(String::new()),
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned() + "failed"),
        Err(_) => None,
    }
}

#[test]
fn bash_reads_its_completions_and_offers_the_verbs() {
    for (path, shell, _) in completions() {
        if shell == Shell::Bash {
            assert_eq!(reads(shell, &path), Some(String::new()), "{path:?}");
        }
    }
    let milter = two_milters();
    for (program, line, expected) in [
        ("pmx-init", "pmx-init try", &["try-restart"][..]),
        ("pmx-milter", "pmx-milter start ", &["one", "other.x"]),
        (
            "pmx-milter",
            "pmx-milter restart one o",
            &["one", "other.x"],
        ),
        ("pmx-milter", "pmx-milter run ot", &["other.x"]),
        (
            "pmx-milter",
            "pmx-milter stop -",
            &["-HUP", "-INT", "-KILL", "-TERM"],
        ),
        ("pmx-init", "pmx-init stop -K", &["-KILL"]),
        ("pmx-milter", "pmx-milter status --f", &["--format"]),
        ("pmx-milter", "pmx-milter check o", &[]),
    ] {
        // What the shell does before it calls the function.
        let script = r#". "$1"; read -ra COMP_WORDS <<<"$2"; case $2 in *" ") COMP_WORDS+=("") ;; esac
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            "_${3/-/__}" "$3" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let mut command = in_path(&milter, "bash");
        command
            .args(["-c", script, "bash"])
            .arg(path(program, Shell::Bash))
            .args([line, program]);
        let offered = run(command, SOON).out;
        let offered: Vec<&str> = offered.lines().filter(|it| !it.is_empty()).collect();
        for word in expected {
            assert!(offered.contains(word), "{line:?}: {offered:?}");
        }
        assert_eq!(
            expected.is_empty(),
            offered.is_empty(),
            "{line:?}: {offered:?}"
        );
    }
    // The configuration that stands in the line.
    let script = r#". "$1"; COMP_WORDS=(pmx-milter -c "$2" start o); COMP_CWORD=4
        _pmx__milter pmx-milter o start; printf '%s\n' "${COMPREPLY[@]}""#;
    let mut command = in_path(&milter, "bash");
    command
        .env("PMX_CONF", "/nonexistent")
        .args(["-c", script, "bash"]);
    command
        .arg(path("pmx-milter", Shell::Bash))
        .arg(milter.path("pmx.conf"));
    assert_eq!(run(command, SOON).out, "one\nother.x\n");
    // As it is typed: quoted, with a run directory, and beside a threshold that has the configuration's letter.
    for (name, _) in awkward_files(&milter) {
        let file = milter.path(name).display().to_string();
        let escaped = file.replace(' ', "\\ ").replace(';', "\\;");
        let run_dir = milter.run_dir().display().to_string();
        for words in [
            &["-c", &format!("'{file}'"), "start"][..],
            &["-c", &format!("\"{file}\""), "start"],
            &["-c", &escaped, "start"],
            &["start", "-c", &escaped],
            &["-c", &escaped, "--run-dir", "=", &run_dir, "stop"],
            &["-c", &escaped, "status", "-c", "90"],
        ] {
            let script = r#". "$1"; shift; COMP_WORDS=(pmx-milter "$@" o); COMP_CWORD=$(($# + 1))
                _pmx__milter pmx-milter o "${@: -1}"; printf '%s\n' "${COMPREPLY[@]}""#;
            let mut command = in_path(&milter, "bash");
            command
                .env("PMX_CONF", "/nonexistent")
                .args(["-c", script, "bash"])
                .arg(path("pmx-milter", Shell::Bash))
                .args(words);
            assert_eq!(run(command, SOON).out, "one\nother.x\n", "{words:?}");
        }
    }
    assert!(!milter.path("owned").exists());
}

/// Configurations whose names a shell must not read once more, and how they are typed.
fn awkward_files(milter: &Milter) -> [(&'static str, &'static str); 2] {
    let names = [
        ("my conf", "my\\ conf"),
        ("a;touch owned;.conf", "'a;touch owned;.conf'"),
    ];
    for (name, _) in names {
        fs::copy(milter.path("pmx.conf"), milter.path(name)).unwrap();
    }
    names
}

/// A configuration with two milters, of which one is disabled.
fn two_milters() -> Milter {
    let milter = Milter::new(ADDS_A_HEADER);
    milter.configure_milters(
        "[milter.one]\nport = \"inet:3366@127.0.0.1\"\npolicy = \"policy.lua\"\n\
         [milter.\"other.x\"]\nport = \"inet:3367@127.0.0.1\"\npolicy = \"policy.lua\"\nenabled = false\n",
    );
    milter
}

/// A shell that finds the programs under test, and their configuration.
fn in_path(milter: &Milter, shell: &str) -> Command {
    let programs = Path::new(PROGRAM).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(shell);
    command
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("PMX_CONF", milter.path("pmx.conf"))
        .env("HOME", milter.path(""))
        .current_dir(milter.path(""));
    command
}

mod needs_zsh_and_fish {
    use super::*;

    #[test]
    fn zsh_and_fish_read_their_completions() {
        for (path, shell, _) in completions() {
            if shell != Shell::Bash {
                let complaint = reads(shell, &path);
                assert_eq!(
                    complaint,
                    Some(String::new()),
                    "{path:?}: this test needs zsh and fish: run tests/run, or leave it out with -- --skip needs_zsh_and_fish::"
                );
            }
        }
    }

    #[test]
    fn fish_offers_milters_and_signals() {
        let milter = two_milters();
        awkward_files(&milter);
        for (line, expected) in [
            ("pmx-milter start o", "one other.x"),
            ("pmx-milter stop -K", "-KILL"),
            ("pmx-init restart one ot", "other.x"),
            ("pmx-milter -c PMX.CONF run o", "one other.x"),
            ("pmx-milter -c my\\ conf start o", "one other.x"),
            ("pmx-milter -c 'a;touch owned;.conf' start o", "one other.x"),
            (
                "pmx-milter -c PMX.CONF --run-dir=. status -c 90 o",
                "one other.x",
            ),
        ] {
            let program = line.split(' ').next().unwrap();
            let line = line.replace("PMX.CONF", milter.path("pmx.conf").to_str().unwrap());
            let mut command = in_path(&milter, "fish");
            command
                .args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"])
                .arg(path(program, Shell::Fish))
                .arg(&line);
            if line.contains("-c ") {
                command.env("PMX_CONF", "/nonexistent");
            }
            let offered = run(command, SOON).expect(0).out;
            let words = offered.lines().map(|it| it.split('\t').next().unwrap());
            assert_eq!(words.collect::<Vec<_>>().join(" "), expected, "{line}");
        }
        assert!(!milter.path("owned").exists());
    }

    /// A line is typed in a terminal and completed; what comes must contain `$3`.
    const TYPE: &str = r#"
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z "source $1"
        zpty -r z out "*ready> *"
        zpty -w -n z "$2"$'\t'
        zpty -r z out "*${(b)3}*"
        zpty -d z
        print found"#;

    #[test]
    fn zsh_offers_milters_and_signals() {
        let milter = two_milters();
        awkward_files(&milter);
        milter.write(
            "rc",
            "PS1='ready> '; setopt no_beep; fpath=($COMPLETIONS $fpath); autoload -U compinit; compinit -u -D\n",
        );
        for (line, expected) in [
            ("pmx-milter start ot", "her.x "),
            ("pmx-init stop -K", "ILL "),
            ("pmx-milter -c PMX.CONF run ot", "her.x "),
            ("true; pmx-milter -c my\\ conf run ot", "her.x "),
            ("pmx-milter -c 'a;touch owned;.conf' run ot", "her.x "),
            (
                "pmx-milter -c PMX.CONF --run-dir=. status -c 90 ot",
                "her.x ",
            ),
        ] {
            let line = line.replace("PMX.CONF", milter.path("pmx.conf").to_str().unwrap());
            let mut command = in_path(&milter, "zsh");
            command
                .args(["-f", "-c", TYPE, "zsh"])
                .arg(milter.path("rc"))
                .args([&*line, expected])
                .env("COMPLETIONS", path("", Shell::Zsh).parent().unwrap())
                .env("TERM", "dumb");
            if line.contains("-c ") {
                command.env("PMX_CONF", "/nonexistent");
            }
            run(command, SOON).expect(0).prints("found");
        }
        assert!(!milter.path("owned").exists());
    }
}
