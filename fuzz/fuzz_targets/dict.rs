//! Garbage in the heap: see `tenfold_fuzz::Target::Dict`.
#![no_main]

use tenfold_fuzz::{Target, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(Target::Dict, data));
