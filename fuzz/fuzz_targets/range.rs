//! See pmx_milter_fuzz::range.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pmx_milter_fuzz::range(data));
