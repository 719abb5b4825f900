//! See pmx_milter_fuzz::frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pmx_milter_fuzz::frame(data));
