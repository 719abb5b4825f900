//! See pmx_milter_fuzz::negotiation.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pmx_milter_fuzz::negotiation(data));
