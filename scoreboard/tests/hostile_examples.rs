//! Whatever stands in the file, the example readers end by themselves: with what they can read, or with an error, never by a signal.
#![cfg(not(loom))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod support;

mod needs_python3_and_cc {
    use std::fs;

    use super::support::words::{from_words, get, put};
    use super::support::{Foreign, Random, dir};

    /// The golden board with damage to a few words: of the header in every case, elsewhere in every second one.
    fn damaged(sound: &[u8], random: &mut Random, round: u64) -> Vec<u8> {
        let mut bytes = sound.to_vec();
        for _ in 0..=random.next() % 3 {
            let word = 3 + usize::try_from(random.next() % 34).unwrap();
            let old = get(&bytes, word);
            let new = match random.next() % 4 {
                0 => random.next(),
                1 => u64::MAX - random.next() % 5000,
                2 => old.wrapping_add(random.next() % 64).wrapping_sub(32),
                _ => old ^ (1 << (random.next() % 64)),
            };
            put(&mut bytes, word, new);
        }
        if round.is_multiple_of(2) {
            // Seldom gets past the checks otherwise.
            put(&mut bytes, 26, 1);
            let size = bytes.len() as u64;
            put(&mut bytes, 4, size);
            for _ in 0..50 {
                let behind = usize::try_from(random.next()).unwrap() % (bytes.len() / 8 - 64);
                let value = random.next() >> (random.next() % 64);
                put(&mut bytes, 64 + behind, value);
            }
        }
        bytes
    }

    fn end_by_themselves(reader: &Foreign, rounds: u64) -> u64 {
        let dir = dir();
        let path = dir.path().join("x.scoreboard");
        let (mut random, mut read) = (Random::new(7), 0);
        let sound = from_words(include_str!("golden/1.1.words"));
        for round in 0..rounds {
            let bytes = damaged(&sound, &mut random, round);
            fs::write(&path, &bytes).unwrap();
            let told = reader.run(&path);
            match told.status.code() {
                Some(0) => read += 1,
                Some(1) => assert!(!told.stderr.is_empty(), "{told:?}"),
                _ => panic!("round {round}: {told:?}"),
            }
        }
        read
    }

    #[test]
    fn the_reader_in_c_never_reads_beyond_the_file() {
        let read = end_by_themselves(&Foreign::c(), 400);
        assert!(read > 20, "hardly any board gets past the checks: {read}");
    }

    #[test]
    fn the_readers_in_python_end_with_an_error_at_worst() {
        for reader in [Foreign::python(), Foreign::exporter()] {
            end_by_themselves(&reader, 10);
        }
    }
}
