//! Functions that other processes can call: what they get, what they leave, how they may fail.
//!
//! A function travels as the offset of its [`Entry`] in the executable. The face makes the entry
//! with a [`tenfold_sys::executable::Trampoline`] whose context is a [`Call`]: it decodes the input,
//! calls the function and encodes what comes back. Nothing here knows what the bytes mean.

use core::sync::atomic::{AtomicBool, Ordering};
use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tenfold_shm::Handle;
use tenfold_shm::message::Payload;
use tenfold_sys::executable::{self, Exported};

/// What a function works on. May be used for one call after the other.
#[derive(Debug)]
pub struct Call {
    /// The argument.
    pub input: Payload,
    /// The result, to be appended.
    pub output: Vec<u8>,
    /// The objects that the result refers to, by their place in this list.
    pub output_handles: Vec<Handle>,
}

/// A function by which another process can be asked to do something. The error is a text: what the
/// function returned, or that its argument cannot be decoded.
pub type Entry = executable::Entry<Call, Result<(), String>>;

/// The fingerprint of all entries: both sides agree on [`Call`].
pub const FINGERPRINT: u64 = u64::from_le_bytes(*b"call v01");

/// The function at an offset that a process of the same executable sent.
pub fn entry_at(offset: u64) -> Option<Entry> {
    Exported::<Entry>::at(offset, FINGERPRINT).map(Exported::value)
}

/// How a call came out.
#[derive(Debug)]
pub enum Outcome {
    /// It returned.
    Returned,
    /// It returned an error, whose text this is.
    Failed(String),
    /// It panicked.
    Panicked(Panic),
}

/// What is known of a panic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Panic {
    /// What was said, with the place in the source where that is known.
    pub message: String,
    /// The stack at the time; empty if nobody took it down.
    pub backtrace: String,
}

struct Report {
    location: String,
    backtrace: Backtrace,
}

thread_local! {
    /// Set while a call runs on this thread.
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static REPORT: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Has panics inside of [`call`] take down their place and stack, before whatever else is done about
/// panics. Before a process runs functions of others; what was installed before a fork is there.
pub(crate) fn install_panic_hook() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if WATCHING.try_with(Cell::get).unwrap_or(false) {
            let location = info.location().map_or_else(String::new, ToString::to_string);
            let report = Report { location, backtrace: Backtrace::force_capture() };
            let _ = REPORT.try_with(|slot| *slot.borrow_mut() = Some(report));
        }
        previous(info);
    }));
}

/// Calls a function, and catches its panic.
pub fn call(entry: Entry, call: &mut Call) -> Outcome {
    catch(|| entry.call(call))
}

/// Calls `f`, and catches its panic.
pub(crate) fn catch(f: impl FnOnce() -> Result<(), String>) -> Outcome {
    let outer = WATCHING.replace(true);
    // What the function leaves half-done is its own affair: like a thread's, its state ends here.
    let caught = catch_unwind(AssertUnwindSafe(f));
    WATCHING.set(outer);
    match caught {
        Ok(Ok(())) => Outcome::Returned,
        Ok(Err(text)) => Outcome::Failed(text),
        Err(thrown) => {
            let report = REPORT.with(|slot| slot.borrow_mut().take());
            let text = text_of(&*thrown);
            // A payload whose own drop panics would end the process here.
            core::mem::forget(thrown);
            Outcome::Panicked(match report {
                Some(report) => Panic {
                    message: format!("{text} (at {})", report.location),
                    backtrace: report.backtrace.to_string(),
                },
                None => Panic { message: text, backtrace: String::new() },
            })
        }
    }
}

fn text_of(thrown: &(dyn Any + Send)) -> String {
    let text = thrown.downcast_ref::<&'static str>().copied();
    let text = text.or_else(|| thrown.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic whose payload is not a text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        install_panic_hook();
        assert!(matches!(catch(|| Ok(())), Outcome::Returned));
        assert!(matches!(catch(|| Err("no".into())), Outcome::Failed(text) if text == "no"));
        let Outcome::Panicked(panic) = catch(|| panic!("boom {}", 7)) else { panic!("no panic") };
        assert!(panic.message.starts_with("boom 7 (at ") && panic.message.contains("function.rs"), "{panic:?}");
        assert!(panic.backtrace.contains("outcomes"), "{}", panic.backtrace);
        let Outcome::Panicked(panic) = catch(|| std::panic::panic_any(7)) else { panic!("no panic") };
        assert!(panic.message.starts_with("a panic whose payload"), "{panic:?}");
    }
}
