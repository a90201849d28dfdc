//! The stack of the calling thread.

use core::cell::Cell;
use core::ops::Range;

thread_local! {
    /// The addresses, once they are known; none if the system does not tell.
    static BOUNDS: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// The addresses that the stack of the calling thread may take up; it grows towards the lower ones. Empty if the system
/// does not tell. A guard page may be among them.
///
/// See [pthread_getattr_np(3)](https://man7.org/linux/man-pages/man3/pthread_getattr_np.3.html).
pub fn bounds() -> Range<usize> {
    let (lowest, end) = BOUNDS.get().unwrap_or_else(|| {
        let found = ask().unwrap_or_default();
        BOUNDS.set(Some(found));
        found
    });
    lowest..end
}

fn ask() -> Option<(usize, usize)> {
    let mut attributes = core::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the call fills the attributes of the calling thread in, or fails.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut lowest, mut size) = (core::ptr::null_mut(), 0);
    // SAFETY: they were filled in above.
    let failed = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size) };
    // SAFETY: as above; they are not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (failed == 0).then_some((lowest.addr(), lowest.addr().saturating_add(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_stack_lies_within() {
        let look = || {
            let here = 0_u8;
            let bounds = bounds();
            assert!(bounds.contains(&(&raw const here).addr()), "{bounds:x?}");
            bounds.len()
        };
        assert!(look() > 0);
        let small = std::thread::Builder::new().stack_size(64 << 10).spawn(look);
        let length = small.expect("thread").join().expect("bounds");
        assert!((32 << 10..=512 << 10).contains(&length), "{length}");
    }
}
