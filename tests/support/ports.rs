//! Free TCP ports, below the range from which the kernel takes ports for outgoing connections, so that none is taken in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A port of 127.0.0.1 on which nobody listens. Test processes start at different places and never give a port twice.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = u16::try_from(std::process::id().wrapping_mul(613) % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (seed + offset % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no TCP port is free");
}

/// Does an SMTP server greet here? A whole session with QUIT: the server's milters see it as one, too.
pub fn greets(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut greeting = String::new();
        BufReader::new(&stream).read_line(&mut greeting)?;
        stream.write_all(b"QUIT\r\n")?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(greeting)
    };
    ask().is_ok_and(|greeting| greeting.starts_with("220"))
}
