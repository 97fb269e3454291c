#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tickgate::fuzzing::wire_frames(input));
