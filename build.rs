//! Builds the guarded copies of Lua's libraries (src/policy/lua54). The interpreter itself comes with the mlua crate, of the same version.

fn main() {
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
