//! The generator: threads that behave like Postfix's SMTP servers, one connection each at a time.

use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mta::{Message, Mta};
use crate::report::median;
use crate::server::Server;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How much at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Messages a connection; with 0 the connection itself is what counts.
    pub(crate) messages: usize,
    /// Bytes of a body.
    pub(crate) body_bytes: usize,
}

/// What one round gave.
#[derive(Clone, Debug)]
pub(crate) struct Result {
    done: u64,
    elapsed: Duration,
    cpu: Duration,
    latencies_us: Vec<f64>,
    /// Connections that failed in any way.
    pub(crate) errors: u64,
}

#[allow(clippy::cast_precision_loss)]
impl Result {
    /// Server's CPU in microseconds, each.
    pub(crate) fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.done as f64
    }

    /// Done in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds from MAIL to the final reply.
    pub(crate) fn median_latency(&self) -> f64 {
        median(self.latencies_us.clone())
    }
}

/// The message of every cell: 12 headers, 2 recipients.
pub(crate) fn message(body_bytes: usize) -> Message {
    let line = b"The quick brown fox jumps over the lazy dog, again and again, all day.\r\n";
    let mut message = Message::from("sender@b.example").and_to("second@example.org");
    message.headers = [
        ("Received", "from c.test (c.test [192.0.2.1])\n\tby mx.test.example (Postfix) with ESMTPS id 4XyZ12345zABC\n\tfor <user@example.org>; Wed, 25 Nov 2026 04:18:42 +0000 (UTC)"),
        ("DKIM-Signature", "v=1; a=rsa-sha256; c=relaxed/simple; d=b.example; s=mail;\n\tt=1795580322; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\n\th=From:To:Subject:Date; b=ZmFrZQ=="),
        ("From", "Sender <sender@b.example>"),
        ("To", "User <user@example.org>"),
        ("Cc", "Second <second@example.org>"),
        ("Subject", "A message of a benchmark"),
        ("Date", "Wed, 25 Nov 2026 04:18:42 +0000"),
        ("Message-ID", "<20261125041842.012229@c.test>"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "8bit"),
        ("User-Agent", "benches/load"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    message.body = line.iter().copied().cycle().take(body_bytes).collect();
    message
}

/// One connection; latencies of its messages in microseconds.
fn connection(server: &Server, load: &Load, message: &Message) -> io::Result<Vec<f64>> {
    let mut mta = Mta::ready(&server.address, TIMEOUT)?;
    let mut latencies = Vec::with_capacity(load.messages);
    for _ in 0..load.messages {
        let start = Instant::now();
        let answer = mta.message(message)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
        if !answer.is_taken() || answer.edits.len() != 1 || !answer.adds_header("X-Filter", "ok") {
            return Err(io::Error::other(format!("{answer:?}")));
        }
    }
    mta.quit()?;
    Ok(latencies)
}

/// Keeps the load up for so long.
pub(crate) fn run(server: &Server, load: &Load, time: Duration) -> Result {
    let message = message(load.body_bytes);
    let errors = AtomicU64::new(0);
    let start_line = Barrier::new(load.connections + 1);
    let cpu_before = server.cpu();
    let (start, mut latencies, connections) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..load.connections)
            .map(|_| {
                scope.spawn(|| {
                    let (mut latencies, mut connections) = (Vec::new(), 0_u64);
                    start_line.wait();
                    let end = Instant::now() + time;
                    while Instant::now() < end {
                        match connection(server, load, &message) {
                            Ok(more) => {
                                latencies.extend(more);
                                connections += 1;
                            }
                            Err(error) => {
                                if errors.fetch_add(1, Ordering::Relaxed) == 0 {
                                    eprintln!("{load:?}: {error}");
                                }
                            }
                        }
                    }
                    (latencies, connections)
                })
            })
            .collect();
        start_line.wait();
        let start = Instant::now();
        let (mut all, mut connections) = (Vec::new(), 0);
        for thread in threads {
            let (latencies, count) = thread.join().unwrap();
            all.extend(latencies);
            connections += count;
        }
        (start, all, connections)
    });
    let elapsed = start.elapsed();
    // The server still closes the last connections: that belongs to them.
    std::thread::sleep(Duration::from_millis(30));
    let cpu = server.cpu().saturating_sub(cpu_before);
    latencies.sort_by(f64::total_cmp);
    Result {
        done: if load.messages == 0 {
            connections
        } else {
            latencies.len() as u64
        },
        elapsed,
        cpu,
        latencies_us: latencies,
        errors: errors.into_inner(),
    }
}

/// What held sessions cost.
pub(crate) struct Held {
    /// Memory of the server's tree, a session.
    pub(crate) bytes_each: f64,
    /// Sessions that got their message through afterwards.
    pub(crate) served: usize,
}

/// Holds so many sessions at rest after HELO, then sends a message through each.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn hold(server: &Server, sessions: usize) -> io::Result<Held> {
    let message = message(4 << 10);
    let warm_up = Load {
        connections: 8,
        messages: 1,
        body_bytes: 4 << 10,
    };
    run(server, &warm_up, Duration::from_millis(500));
    let before = server.memory();
    let mut held = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        held.push(Mta::ready(&server.address, TIMEOUT)?);
    }
    std::thread::sleep(Duration::from_millis(200));
    let after = server.memory();
    let mut served = 0;
    for mut mta in held {
        if mta.message(&message)?.is_taken() {
            served += 1;
        }
    }
    Ok(Held {
        bytes_each: (after as f64 - before as f64) / sessions as f64,
        served,
    })
}
