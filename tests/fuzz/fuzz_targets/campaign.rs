//! Feeds `nbi_upgrade_fuzz::campaign`, which says what is checked.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(nbi_upgrade_fuzz::campaign::play(bytes)));
