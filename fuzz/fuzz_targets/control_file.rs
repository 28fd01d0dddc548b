#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engine::local::fuzzing::control_file(bytes));
