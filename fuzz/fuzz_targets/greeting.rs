#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| howdah::gateway::fuzzing::greeting(bytes));
