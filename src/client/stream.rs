//! A socket to a milter's port, with a deadline for each read and write.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Client;
use crate::config::Port;
use crate::sys::names;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// `inet` and `inet6`
    Tcp(TcpStream),
    /// `unix` and `local`
    Unix(UnixStream),
}

impl Stream {
    /// Connects; `limit` bounds the connecting and then each read and write.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when the host has no address.
    pub fn connect(port: &Port, limit: Duration) -> io::Result<Stream> {
        match port {
            Port::Inet { port, host } | Port::Inet6 { port, host } => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in names::host(host)? {
                    let address = SocketAddr::new(address, *port);
                    match TcpStream::connect_timeout(&address, limit) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_read_timeout(Some(limit))?;
                            stream.set_write_timeout(Some(limit))?;
                            return Ok(Stream::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Port::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                Ok(Stream::Unix(stream))
            }
        }
    }
}

impl Client<Stream> {
    /// Connects to a milter; `limit` bounds the connecting and then each read and write.
    ///
    /// # Errors
    /// As for [`Stream::connect`].
    pub fn connect(port: &Port, limit: Duration) -> io::Result<Client<Stream>> {
        Stream::connect(port, limit).map(Client::new)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}
