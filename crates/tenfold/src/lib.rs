//! Process-based parallelism that is fast and cannot hang.
#![forbid(unsafe_code)]

mod error;
mod payload;

pub use error::{Error, Result};
pub use payload::Message;
