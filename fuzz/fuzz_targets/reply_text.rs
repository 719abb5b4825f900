//! See pmx_milter_fuzz::reply_text.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pmx_milter_fuzz::reply_text(data));
