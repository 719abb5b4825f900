//! What each fuzz target checks, as plain functions: libFuzzer calls them, and a test on stable feeds them the corpus.

#![forbid(unsafe_code)]

mod board_reader;
mod negotiation;
mod range;
mod reply_text;
mod session;

use std::path::Path;

pub use board_reader::board_reader;
pub use negotiation::negotiation;
use pmx_milter::client::encode;
use pmx_milter::config::{self, Config};
use pmx_milter::milter::command::{self, Command};
use pmx_milter::milter::frame::{self, Frame, PAYLOAD_BYTES};
pub use range::range;
pub use reply_text::reply_text;
pub use session::session;

/// Frames: what is cut is what was put, and more bytes behind never change what is cut.
pub fn frame(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((frame, used))) = frame::cut(rest, PAYLOAD_BYTES) {
        assert_eq!(used, 5 + frame.payload.len());
        assert_eq!(
            frame::cut(&rest[..used], PAYLOAD_BYTES),
            Ok(Some((frame, used)))
        );
        assert_eq!(frame::cut(&rest[..used - 1], PAYLOAD_BYTES), Ok(None));
        let mut again = Vec::new();
        frame::put(&mut again, frame.code, &[frame.payload]);
        assert_eq!(again, &rest[..used]);
        rest = &rest[used..];
    }
}

/// Commands: the first byte is the code. What parses is written back by the client's encoder, and parses to the same.
pub fn command(data: &[u8]) {
    let Some((code, payload)) = data.split_first() else {
        return;
    };
    if payload.len() > PAYLOAD_BYTES {
        return;
    }
    let code = *code;
    let Ok(parsed) = command::parse(Frame { code, payload }) else {
        return;
    };
    let mut again = Vec::new();
    let owned = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
    match &parsed {
        Command::Negotiate(version, actions, steps) => {
            encode::negotiate(&mut again, *version, *actions, *steps);
        }
        Command::Helo(name) => encode::helo(&mut again, name),
        Command::Mail(sender, words) => encode::mail(&mut again, sender, &owned(words)),
        Command::Rcpt(recipient, words) => encode::rcpt(&mut again, recipient, &owned(words)),
        Command::Data => encode::data(&mut again),
        Command::Header(name, value) => encode::header(&mut again, name, value),
        Command::Eoh => encode::eoh(&mut again),
        Command::Body(chunk) => encode::body(&mut again, chunk),
        Command::Eom(chunk) => encode::eom(&mut again, chunk),
        Command::Unknown(text) => encode::unknown(&mut again, text),
        Command::Abort => encode::abort(&mut again),
        Command::Quit => encode::quit(&mut again),
        Command::QuitNewConnection => encode::quit_new_connection(&mut again),
        // Their encoders take values that have been understood, not bytes.
        Command::Macros(..) | Command::Connect(..) => return,
    }
    let cut = frame::cut(&again, PAYLOAD_BYTES);
    let Ok(Some((frame, used))) = cut else {
        panic!("what was encoded is no frame: {cut:?}");
    };
    assert_eq!(used, again.len());
    assert_eq!(command::parse(frame), Ok(parsed));
}

/// pmx.conf: whatever it holds, reading ends with a configuration or with problems that can be shown; a configuration that is written
/// out reads back to the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // An include would read files of this machine.
    if text.contains("include") {
        return;
    }
    let file = Path::new("/etc/pmx/pmx.conf");
    match Config::parse_text(file, text) {
        Ok(config) => {
            let written = config::dump(&config);
            let again = Config::parse_text(file, &written)
                .unwrap_or_else(|problems| panic!("{problems}\n{written}"));
            assert_eq!(again, config, "{written}");
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Every file of the corpus, and many changed copies of it: cut, joined, with bytes changed. The same in every run.
    fn feed(target: &str, run: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{}", folder.display());
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            // xorshift64*
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            let number = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
            usize::try_from(number).unwrap() % below.max(1)
        };
        for file in files {
            let seed = fs::read(&file).unwrap();
            run(&seed);
            for _ in 0..300 {
                let mut data = seed.clone();
                for _ in 0..=next(4) {
                    if data.is_empty() {
                        break;
                    }
                    let at = next(data.len());
                    match next(4) {
                        0 => data[at] = u8::try_from(next(256)).unwrap(),
                        1 => data[at] ^= 1 << next(8),
                        2 => data.truncate(at),
                        _ => {
                            let piece = data[at..(at + next(16)).min(data.len())].to_vec();
                            data.splice(at..at, piece);
                        }
                    }
                }
                run(&data);
            }
        }
        run(&[]);
    }

    #[test]
    fn frame_holds_on_its_corpus() {
        feed("frame", super::frame);
    }

    #[test]
    fn command_holds_on_its_corpus() {
        feed("command", super::command);
    }

    #[test]
    fn session_holds_on_its_corpus() {
        feed("session", super::session);
    }

    #[test]
    fn config_holds_on_its_corpus() {
        feed("config", super::config);
    }

    #[test]
    fn board_reader_holds_on_its_corpus() {
        feed("board_reader", super::board_reader);
    }

    #[test]
    fn range_holds_on_its_corpus() {
        feed("range", super::range);
    }

    #[test]
    fn reply_text_holds_on_its_corpus() {
        feed("reply_text", super::reply_text);
    }

    #[test]
    fn negotiation_holds_on_its_corpus() {
        feed("negotiation", super::negotiation);
    }
}
