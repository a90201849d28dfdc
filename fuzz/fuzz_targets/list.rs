//! Garbage in the heap: see `tenfold_fuzz::Target::List`.
#![no_main]

use tenfold_fuzz::{Target, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(Target::List, data));
