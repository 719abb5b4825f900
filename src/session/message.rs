//! The content of a message as it comes in: kept up to a limit, beyond which nothing of it is kept any more.
#![forbid(unsafe_code)]

use crate::policy::facts::{Headers, Message};

/// Most header fields of a message: a policy that reads `ctx.headers` gets a table for each.
const MOST_HEADERS: usize = 10_000;

/// Whether something was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Kept {
    /// It was.
    Yes,
    /// The message is larger than is allowed; what was kept of its content is gone.
    TooLarge,
}

/// Keeps a header field.
pub(super) fn keep_header(
    message: &mut Message,
    name: &[u8],
    value: &[u8],
    most_bytes: usize,
) -> Kept {
    if message.headers.len() == MOST_HEADERS
        || kept_bytes(message) + Headers::cost(name, value) > most_bytes
    {
        return too_large(message);
    }
    message.headers.push(name, value);
    Kept::Yes
}

/// Keeps a body chunk.
pub(super) fn keep_chunk(message: &mut Message, chunk: &[u8], most_bytes: usize) -> Kept {
    if kept_bytes(message) + chunk.len() > most_bytes {
        return too_large(message);
    }
    message.body.extend_from_slice(chunk);
    Kept::Yes
}

/// Gives back the memory of a message's content.
pub(super) fn drop_content(message: &mut Message) {
    message.headers = Headers::default();
    message.body = Vec::new();
}

fn kept_bytes(message: &Message) -> usize {
    message.headers.kept_bytes() + message.body.len()
}

fn too_large(message: &mut Message) -> Kept {
    drop_content(message);
    Kept::TooLarge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_kept_up_to_the_limit_and_then_given_back() {
        let mut message = Message::default();
        assert_eq!(keep_header(&mut message, b"A", b"b", 20), Kept::Yes);
        assert_eq!(keep_chunk(&mut message, b"0123456789", 20), Kept::Yes);
        assert_eq!(
            message
                .headers
                .iter()
                .map(|header| (header.name, header.value))
                .collect::<Vec<_>>(),
            [(&b"A"[..], &b"b"[..])]
        );
        assert_eq!(keep_chunk(&mut message, b"x", 20), Kept::TooLarge);
        assert!(message.headers.is_empty() && message.body.capacity() == 0);
    }

    #[test]
    fn the_number_of_headers_is_bounded() {
        let mut message = Message::default();
        for _ in 0..MOST_HEADERS {
            assert_eq!(keep_header(&mut message, b"", b"", usize::MAX), Kept::Yes);
        }
        assert_eq!(
            keep_header(&mut message, b"", b"", usize::MAX),
            Kept::TooLarge
        );
    }
}
