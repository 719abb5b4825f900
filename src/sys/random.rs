//! Random numbers from the kernel: forked children share every other source's state.

use std::io;

/// 64 random bits.
///
/// # Errors
/// The kernel's; none is known for so few bytes once the machine has booted (getrandom(2)).
pub fn seed() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: getrandom(2) writes at most `bytes.len()` bytes at a valid pointer.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(count) {
        Ok(count) if count == bytes.len() => Ok(u64::from_ne_bytes(bytes)),
        Ok(_) => Err(io::Error::other("getrandom gave too few bytes")),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
