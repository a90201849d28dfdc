//! How a plain function gets to another process, and what it may return.

use core::fmt::Display;
use core::marker::PhantomData;

use tenfold_engine::function::{Call, FINGERPRINT};
use tenfold_engine::launch::LaunchError;
use tenfold_engine::sys::executable::{Function, Trampoline};

use crate::error::{Error, Result};
use crate::payload::{Message, decode};

/// What the function of a [`Process`](crate::Process) may return: nothing, or a `Result` whose error
/// reaches the one that joins.
#[diagnostic::on_unimplemented(
    message = "the function of a process returns nothing or a `Result<(), E>`, not `{Self}`",
    note = "to get a value back, send it through a `Queue` that is among the arguments, or use `Pool::apply`"
)]
pub trait Outcome {
    /// The text of the error, if it is one.
    ///
    /// # Errors
    /// That text.
    fn outcome(self) -> core::result::Result<(), String>;
}

impl Outcome for () {
    fn outcome(self) -> core::result::Result<(), String> {
        Ok(())
    }
}

impl<E: Display> Outcome for core::result::Result<(), E> {
    fn outcome(self) -> core::result::Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

impl Outcome for never::Never {
    fn outcome(self) -> core::result::Result<(), String> {
        self
    }
}

/// The type `!`, by the one way there is to name it outside of a return type.
mod never {
    pub trait Returning {
        type Type;
    }

    impl<R> Returning for fn() -> R {
        type Type = R;
    }

    pub(super) type Never = <fn() -> ! as Returning>::Type;
}

/// Calls the function of a process: one argument in, nothing out.
struct OfProcess<A, R>(PhantomData<fn(A) -> R>);

impl<F, A, R> Trampoline<F> for OfProcess<A, R>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Message,
    R: Outcome + 'static,
{
    type Context = Call;
    type Output = core::result::Result<(), String>;
    const FINGERPRINT: u64 = FINGERPRINT;

    fn call(function: F, call: &mut Call) -> Self::Output {
        let argument = argument::<A>(call).map_err(|error| error.to_string())?;
        function(argument).outcome()
    }
}

/// Decodes the argument of a call.
fn argument<A: Message>(call: &Call) -> Result<A> {
    let handles = call.input.handles()?;
    call.input.with(|bytes| decode(bytes, handles))?
}

/// Where another process finds the function `f` of a process.
pub(crate) fn process_entry<F, A, R>(f: F) -> Result<u64>
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
    A: Message,
    R: Outcome + 'static,
{
    let entry = Function::of(f).entry::<OfProcess<A, R>>();
    entry.offset().ok_or_else(|| Error::from(LaunchError::NotExported))
}

/// The last part of a function's path, to name a process after it.
pub(crate) fn short_name<F>() -> String {
    let path = core::any::type_name::<F>();
    let path = path.strip_suffix("::{{closure}}").unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path).to_owned()
}
