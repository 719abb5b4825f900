//! Builds the guarded copies of Lua's libraries (src/policy/lua54), whose interpreter comes with the mlua crate, of the same version; and
//! finds out which commit this is, for `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
    guarded_libraries();
    println!("cargo::rustc-env=PMX_BUILD={}", build());
}

/// The commit, for people who report a fault: from `PMX_COMMIT` (who packages an archive sets it), else from git.
fn build() -> String {
    println!("cargo::rerun-if-env-changed=PMX_COMMIT");
    if let Ok(given) = std::env::var("PMX_COMMIT")
        && !given.is_empty()
    {
        return given;
    }
    // Followed in release builds only: otherwise every commit would build all tests anew.
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return "debug build".to_owned();
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown commit".to_owned();
    };
    // HEAD names a branch, whose file moves with each commit; in a linked work tree they are elsewhere.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    commit
}

/// What git answers; nothing when there is none, or when the repository around us is somebody else's (a vendored copy).
fn git(arguments: &[&str]) -> Option<String> {
    let ours = env!("CARGO_MANIFEST_DIR");
    if !Path::new(ours).join(".git").exists() {
        return None;
    }
    let output = Command::new("git")
        .args(["-C", ours])
        .args(arguments)
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn guarded_libraries() {
    const FOLDER: &str = "src/policy/lua54";
    println!("cargo::rerun-if-changed={FOLDER}");
    cc::Build::new()
        .include(FOLDER)
        .files(
            [
                "pmxguard.c",
                "lstrlib.c",
                "ltablib.c",
                "lutf8lib.c",
                "lcorolib.c",
            ]
            .map(|file| format!("{FOLDER}/{file}")),
        )
        // As the lua-src crate builds the interpreter: luaconf.h depends on it.
        .define("LUA_USE_LINUX", None)
        .define("LUA_COMPAT_5_3", None)
        // A script's error leaves these functions by longjmp, or by unwinding when it passes Rust.
        .flag_if_supported("-fexceptions")
        .opt_level(2)
        .compile("pmxguard");
}
