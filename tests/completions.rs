//! The shells' completions in `dist/completions` are those of the option parsers, and every shell that is here can read its own.
//!
//! After a change of the command line: `UPDATE_COMPLETIONS=1 cargo test --test completions`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_complete::{Shell, generate};
use pmx_milter::cli;

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

/// Every file and what should be in it.
fn completions() -> Vec<(PathBuf, Shell, String)> {
    let mut all = Vec::new();
    for command in cli::commands() {
        let program = command.get_name().to_owned();
        for shell in SHELLS {
            let mut text = Vec::new();
            generate(shell, &mut command.clone(), &program, &mut text);
            let text = String::from_utf8(text).unwrap();
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
    let script = r#". "$1"; COMP_WORDS=(pmx-init try); COMP_CWORD=1
        _pmx__init pmx-init try pmx-init; echo "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(path("pmx-init", Shell::Bash))
        .output()
        .unwrap();
    let offered = String::from_utf8(output.stdout).unwrap();
    assert!(offered.contains("try-restart"), "{offered:?}");
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
}
