//! `examples/pmx_scoreboard.h` is made from the schema, and a C compiler agrees with its offsets.
//!
//! `UPDATE_FORMAT=1 cargo test -p scoreboard` writes it anew.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write;
use std::fs;

use scoreboard::layout::{
    CHILD_ROOM, CHILD_SECOND, DEATHS, DEATHS_OFFSET, ENDIAN, GLOBAL, GLOBAL_OFFSET, LINE, MAGIC,
    MAJOR, MAX_SLOTS, MINOR, READY,
};
use scoreboard::schema::{Area, Field, Kind, fields};
use support::crate_file;

const HEAD: &str = "\
/* The scoreboard of pmx-milter for programs in C: constants, records and enums of FORMAT.md, as words of the file.
   Made from the schema by the test `c_header`: do not edit, run `UPDATE_FORMAT=1 cargo test -p scoreboard`.

   Copy a record out of the file (see read_board.c for how) and look at the copy; never look at the file through these structs, for it
   changes while you look. A later minor version has longer records: copy the words you know. */
#ifndef PMX_SCOREBOARD_H
#define PMX_SCOREBOARD_H

#include <stddef.h>
#include <stdint.h>

";

fn upper(name: &str) -> String {
    name.replace(['.', '-'], "_").to_uppercase()
}

fn constants(out: &mut String) {
    let magic: String = MAGIC.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let _ = writeln!(out, "#define PMX_MAGIC \"{magic}\" /* the first 8 bytes */");
    let numbers = [
        ("MAJOR", u64::from(MAJOR), "readers refuse another one"),
        ("MINOR", u64::from(MINOR), "of this header"),
        ("READY", READY, "value of ready"),
        (
            "GLOBAL_VERSION",
            GLOBAL_OFFSET as u64,
            "offset of the global record's version word",
        ),
        (
            "GLOBAL_COPY_0",
            GLOBAL.copies[0] as u64 * 8,
            "offset of its copies",
        ),
        ("GLOBAL_COPY_1", GLOBAL.copies[1] as u64 * 8, ""),
        (
            "LINE",
            LINE as u64,
            "from a record's version word to its first copy; from a ring's count to its first entry",
        ),
        (
            "CHILD_COPY_1",
            CHILD_SECOND as u64,
            "from a child's page to its second copy",
        ),
        (
            "CHILD_ROOM",
            CHILD_ROOM as u64,
            "most bytes of a copy there",
        ),
        ("DEATHS_OFFSET", DEATHS_OFFSET as u64, "the ring of deaths"),
        ("DEATHS", DEATHS as u64, "its entries"),
        ("MAX_SLOTS", MAX_SLOTS, "believe in no more"),
    ];
    for (name, number, meaning) in numbers {
        let comment = if meaning.is_empty() {
            String::new()
        } else {
            format!(" /* {meaning} */")
        };
        let _ = writeln!(out, "#define PMX_{name} {number}{comment}");
    }
    let _ = writeln!(
        out,
        "#define PMX_ENDIAN UINT64_C(0x{ENDIAN:016x}) /* value of endian */"
    );
    let _ = writeln!(
        out,
        "#define PMX_UNKNOWN UINT64_MAX /* in a gauge: nobody can tell */"
    );
}

/// The numbers of an enum, and the places of what a field of several words counts.
fn enums(out: &mut String, field: &Field) {
    let prefix = format!("PMX_{}_{}", upper(field.area.name()), upper(&field.name));
    let values: Vec<(String, u64)> = match field.kind {
        Kind::Enum(values) => values()
            .into_iter()
            .map(|(number, name)| (upper(name), number))
            .collect(),
        // Bounds of buckets are no names.
        _ if field.labels.last().is_some_and(|label| label == "+Inf") => Vec::new(),
        _ => (0..)
            .zip(&field.labels)
            .map(|(place, name)| (upper(name), place))
            .collect(),
    };
    if values.is_empty() {
        return;
    }
    let values: Vec<String> = values
        .iter()
        .map(|(name, number)| format!("  {prefix}_{name} = {number}"))
        .collect();
    let _ = writeln!(out, "enum {{\n{}\n}};", values.join(",\n"));
}

fn record(out: &mut String, area: Area) {
    let of_area: Vec<Field> = fields().into_iter().filter(|it| it.area == area).collect();
    let name = format!("pmx_{}", area.name());
    let member = |field: &Field| field.name.replace('.', "_");
    let _ = writeln!(out, "\nstruct {name} {{");
    let mut end = 0;
    for field in &of_area {
        let width = if field.words == 1 {
            String::new()
        } else {
            format!("[{}]", field.words)
        };
        let mut about = field.help.to_owned();
        if !field.unit.is_empty() {
            about = format!("{}: {about}", field.unit);
        }
        if matches!(field.kind, Kind::Text) {
            about.push_str("; length, then bytes");
        }
        let _ = writeln!(
            out,
            "  uint64_t {}{width}; /* {} | {about} */",
            member(field),
            field.kind.name()
        );
        end = field.word + field.words;
    }
    if end < area.words() {
        let _ = writeln!(out, "  uint64_t reserved[{}];", area.words() - end);
    }
    let _ = writeln!(out, "}};");
    let _ = writeln!(
        out,
        "_Static_assert(sizeof(struct {name}) == {}, \"{name}\");",
        area.words() * 8
    );
    for field in &of_area {
        let _ = writeln!(
            out,
            "_Static_assert(offsetof(struct {name}, {}) == {}, \"{}\");",
            member(field),
            field.word * 8,
            field.name
        );
    }
    for field in &of_area {
        enums(out, field);
    }
}

fn header() -> String {
    let mut out = HEAD.to_owned();
    constants(&mut out);
    for area in Area::ALL {
        record(&mut out, *area);
    }
    out.push_str("\n#endif\n");
    out
}

#[test]
fn the_c_header_is_made_from_the_schema() {
    support::same_as_committed(&crate_file("examples/pmx_scoreboard.h"), &header());
}

mod needs_python3_and_cc {
    use super::*;

    #[test]
    fn a_c_compiler_agrees_with_every_offset_and_an_offset_that_is_wrong_does_not_compile() {
        let dir = support::dir();
        let header = fs::read_to_string(crate_file("examples/pmx_scoreboard.h")).unwrap();
        let compile = |text: &str| {
            fs::write(dir.path().join("pmx_scoreboard.h"), text).unwrap();
            let source = dir.path().join("look.c");
            fs::write(
                &source,
                "#include \"pmx_scoreboard.h\"\nint main(void) { return 0; }\n",
            )
            .unwrap();
            support::compile(&source, &dir.path().join("look"))
        };
        let told = compile(&header);
        assert!(told.status.success(), "{told:?}");
        let moved = header.replacen("  uint64_t incarnation;", "  uint64_t incarnation[2];", 1);
        assert_ne!(moved, header);
        assert!(!compile(&moved).status.success());
    }
}
