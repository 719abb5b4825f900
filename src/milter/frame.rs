//! Frames: a length of four bytes, a code, a payload. Cut from whatever bytes are there, whole or not.
//!
//! The length is checked before anything is read or kept on its word: libmilter takes 0 and ffffffff as an empty packet, and HTTP or
//! TLS bytes as a huge one; all of these are refused here.
#![forbid(unsafe_code)]

use std::fmt;

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;
/// Largest payload without a larger agreed size (libmilter, `MILTER_MAX_DATA_SIZE`).
pub const PAYLOAD_BYTES: usize = 65_535;

/// One whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Command or reply code.
    pub code: u8,
    /// What follows it.
    pub payload: &'a [u8],
}

/// A length that no MTA sends; the connection is to be closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The length that came.
    pub length: u32,
    /// The largest that would have been taken.
    pub most: usize,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a frame of {} bytes (1 to {} are possible); is this an MTA?",
            self.length, self.most
        )
    }
}

impl std::error::Error for FrameError {}

/// Cuts the first frame; also says how many bytes it took. `Ok(None)`: more bytes are needed.
///
/// # Errors
/// When the length is 0 or above `most_payload` + 1.
pub fn cut(input: &[u8], most_payload: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((head, rest)) = input.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*head);
    let most = most_payload + 1;
    let bytes = match usize::try_from(length) {
        Ok(bytes) if (1..=most).contains(&bytes) => bytes,
        _ => return Err(FrameError { length, most }),
    };
    let Some((code, payload)) = rest.get(..bytes).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    Ok(Some((
        Frame {
            code: *code,
            payload,
        },
        LENGTH_BYTES + bytes,
    )))
}

/// Appends a frame whose payload is these parts joined.
///
/// # Panics
/// When the parts are longer than a frame can be: a caller bounds them first.
pub fn put(out: &mut Vec<u8>, code: u8, parts: &[&[u8]]) {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let length =
        u32::try_from(payload + 1).expect("callers bound what they send to a frame's size");
    out.extend_from_slice(&length.to_be_bytes());
    out.push(code);
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_frame_is_cut_from_any_fragmentation() {
        let mut bytes = Vec::new();
        put(&mut bytes, b'H', &[b"c.test\0"]);
        put(&mut bytes, b'T', &[]);
        for end in 0..12 {
            assert_eq!(cut(&bytes[..end], PAYLOAD_BYTES), Ok(None), "{end} bytes");
        }
        let (frame, used) = cut(&bytes, PAYLOAD_BYTES).unwrap().unwrap();
        assert_eq!(
            (frame.code, frame.payload, used),
            (b'H', &b"c.test\0"[..], 12)
        );
        let (frame, used) = cut(&bytes[used..], PAYLOAD_BYTES).unwrap().unwrap();
        assert_eq!((frame.code, frame.payload, used), (b'T', &b""[..], 5));
    }

    #[test]
    fn lengths_that_no_mta_sends_are_refused_before_their_payload_comes() {
        for head in [
            [0, 0, 0, 0],
            [0xff; 4],
            *b"GET ",
            [0x16, 3, 1, 2],
            [0, 1, 0, 1],
        ] {
            assert!(cut(&head, PAYLOAD_BYTES).is_err(), "{head:?}");
        }
        assert_eq!(
            cut(&[0, 1, 0, 0], PAYLOAD_BYTES),
            Ok(None),
            "65536 is the largest"
        );
    }
}
