//! See pmx_milter_fuzz::board_reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pmx_milter_fuzz::board_reader(data));
