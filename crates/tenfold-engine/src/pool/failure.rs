//! Why a task has no result, as bytes.
//!
//! ```text
//!  ┌ kind u8 ┬ length u32 ┬ text … ┬ backtrace … ┐
//! ```

/// Why a task that ran has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// The function panicked.
    Panicked = 1,
    /// The argument could not be decoded in the worker.
    Argument = 2,
    /// The result could not be encoded, or the heap has no room for it.
    Result = 3,
    /// The worker does not know the function: it runs another executable.
    UnknownFunction = 4,
}

/// A failed task's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// The panic's message or the error's text.
    pub text: String,
    /// Where it happened; empty if that is not known.
    pub backtrace: String,
}

impl Failure {
    /// A report without a backtrace.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into(), backtrace: String::new() }
    }

    /// The report as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind as u8];
        bytes.extend_from_slice(&(self.text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.text.as_bytes());
        bytes.extend_from_slice(self.backtrace.as_bytes());
        bytes
    }

    /// The report that the bytes contain; what cannot be read is left out.
    pub fn from_bytes(bytes: &[u8]) -> Failure {
        let kind = match bytes.first() {
            Some(1) => FailureKind::Panicked,
            Some(2) => FailureKind::Argument,
            Some(4) => FailureKind::UnknownFunction,
            _ => FailureKind::Result,
        };
        let length = bytes.get(1..5).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
        let rest = bytes.get(5..).unwrap_or_default();
        let (text, backtrace) = rest.split_at(length.min(rest.len()));
        let string = |b| String::from_utf8_lossy(b).into_owned();
        Failure { kind, text: string(text), backtrace: string(backtrace) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_journey_and_garbage_does_not_panic() {
        let report = Failure { kind: FailureKind::Argument, text: "no".into(), backtrace: "there".into() };
        assert_eq!(Failure::from_bytes(&report.to_bytes()), report);
        for garbage in [&[][..], &[1], &[9, 255, 255, 255, 255, 1]] {
            Failure::from_bytes(garbage);
        }
    }
}
