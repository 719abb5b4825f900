//! Measures pmx-milter against a filter on C libmilter, both doing the same, in the same run, in interleaved rounds.
//!
//! Started by `benches/run`. What counts is CPU time of the whole process tree of the server, divided by messages: on a machine whose
//! cores are shared with the generator, messages a second say less. Prints Markdown on standard output.
#![allow(clippy::unwrap_used)]

mod drive;
#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/support/mta.rs"]
mod mta;
mod report;
mod server;
mod system_calls;

use std::time::Duration;

use drive::{Load, Result};
use report::{median, ratio, shown};
use server::{Filter, Server, Transport};

/// One row of the first table.
struct Cell {
    filter: Filter,
    transport: Transport,
    load: Load,
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut add = |filter, transport, connections, messages, body_bytes| {
        let load = Load {
            connections,
            messages,
            body_bytes,
        };
        cells.push(Cell {
            filter,
            transport,
            load,
        });
    };
    for transport in [Transport::Unix, Transport::Tcp] {
        for body_bytes in [4 << 10, 256 << 10] {
            for connections in [1, 8, 64] {
                add(Filter::All, transport, connections, 1, body_bytes);
            }
        }
    }
    add(Filter::All, Transport::Unix, 8, 10, 4 << 10);
    add(Filter::Eom, Transport::Unix, 8, 1, 4 << 10);
    add(Filter::Eom, Transport::Unix, 8, 10, 4 << 10);
    // No message: open, negotiate, connect, helo, quit.
    for connections in [8, 64] {
        add(Filter::All, Transport::Unix, connections, 0, 0);
    }
    cells
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    // For profiles: only the rows whose name holds this text.
    let only = arguments
        .iter()
        .position(|argument| argument == "--only")
        .and_then(|index| arguments.get(index + 1));
    let (rounds, time) = if quick {
        (3, Duration::from_millis(300))
    } else {
        (5, Duration::from_secs(1))
    };
    server::raise_descriptor_limit();
    println!("# pmx-milter against libmilter\n");
    println!(
        "{rounds} interleaved rounds of {time:?} a cell, medians; ratio = pmx-milter / libmilter. CPU: microseconds of the server's whole\n\
         process tree a message (a connection where no message is sent). Message: 12 headers, 2 recipients, one header is added.\n"
    );
    throughput(rounds, time, only.map_or("", String::as_str));
    if only.is_none() {
        system_calls(if quick { 100 } else { 500 });
        memory();
    }
}

fn both(filter: Filter, transport: Transport) -> [Server; 2] {
    [
        Server::libmilter(filter, transport),
        Server::pmx(filter, transport, ""),
    ]
}

fn throughput(rounds: usize, time: Duration, only: &str) {
    let servers: Vec<((Filter, Transport), [Server; 2])> = [
        (Filter::All, Transport::Unix),
        (Filter::All, Transport::Tcp),
        (Filter::Eom, Transport::Unix),
    ]
    .into_iter()
    .map(|(filter, transport)| ((filter, transport), both(filter, transport)))
    .collect();
    println!(
        "| policy, socket, connections / messages each / body | CPU libmilter | CPU pmx | ratio | a second libmilter | pmx | ratio | p50 us libmilter | pmx | errors |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for cell in cells() {
        let name = format!(
            "{}, {}, {} / {} / {}K",
            cell.filter.name(),
            cell.transport.name(),
            cell.load.connections,
            cell.load.messages,
            cell.load.body_bytes >> 10
        );
        if !name.contains(only) {
            continue;
        }
        let pair = &servers
            .iter()
            .find(|(key, _)| *key == (cell.filter, cell.transport))
            .unwrap()
            .1;
        let mut results: [Vec<Result>; 2] = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (server, results) in pair.iter().zip(&mut results) {
                let result = drive::run(server, &cell.load, time);
                // The first round warms up.
                if round > 0 {
                    results.push(result);
                }
            }
        }
        let of = |which: usize, pick: fn(&Result) -> f64| {
            median(results[which].iter().map(pick).collect())
        };
        let cpu = [0, 1].map(|which| of(which, Result::cpu_each));
        let rate = [0, 1].map(|which| of(which, Result::per_second));
        let p50 = [0, 1].map(|which| of(which, Result::median_latency));
        let errors: u64 = results.iter().flatten().map(|result| result.errors).sum();
        println!(
            "| {name} | {:.0} | {:.0} | **{}** | {:.0} | {:.0} | {} | {} | {} | {errors} |",
            cpu[0],
            cpu[1],
            ratio(cpu[1], cpu[0]),
            rate[0],
            rate[1],
            ratio(rate[1], rate[0]),
            shown(p50[0]),
            shown(p50[1]),
        );
    }
}

fn system_calls(messages: usize) {
    println!("\n| system calls a message (1 connection a message, 4K, unix) | libmilter | pmx |");
    println!("|---|---|---|");
    for filter in [Filter::All, Filter::Eom] {
        let counted =
            both(filter, Transport::Unix).map(|server| system_calls::count(&server, messages));
        let shown =
            counted.map(|count| count.map_or("-".to_owned(), |count| format!("{count:.1}")));
        println!("| {} | {} | {} |", filter.name(), shown[0], shown[1]);
    }
}

fn memory() {
    println!(
        "\n| idle sessions held (after HELO, policy with all callbacks) | bytes a session libmilter | pmx | all served afterwards |"
    );
    println!("|---|---|---|---|");
    for sessions in [1_000, 10_000] {
        let servers = [
            Server::libmilter(Filter::All, Transport::Unix),
            Server::pmx(
                Filter::All,
                Transport::Unix,
                "interpreter_connections = 5000",
            ),
        ];
        let held = servers.map(|server| drive::hold(&server, sessions));
        let served = held
            .iter()
            .all(|one| one.as_ref().is_ok_and(|one| one.served == sessions));
        let shown = held.map(|one| match one {
            Ok(one) => format!("{:.0}", one.bytes_each),
            Err(error) => format!("({error})"),
        });
        println!(
            "| {sessions} | {} | {} | {} |",
            shown[0],
            shown[1],
            if served { "yes" } else { "no" }
        );
    }
}
