//! Size classes: four to each power of two, from 64 bytes up.

use core::sync::atomic::AtomicU64;

use crate::internal_lock::InternalLock;

/// The smallest block in bytes.
pub const SMALLEST: u64 = 64;
/// How many classes there are; the last one holds 64 · 2^33 bytes.
pub const CLASSES: usize = 33 * 4 + 1;
/// The largest block in bytes.
pub const LARGEST: u64 = SMALLEST << 33;
/// Blocks up to this size are carved from slabs of [`SLAB`] bytes.
pub const SMALL: u64 = 8 << 10;
/// Bytes of a slab of small blocks.
pub const SLAB: u64 = 64 << 10;

/// The free list of one class.
#[repr(C, align(64))]
pub struct ClassHead {
    pub(crate) lock: InternalLock,
    /// Index of the first free descriptor, or 0.
    pub(crate) free: AtomicU64,
    /// Blocks of this class in use.
    pub(crate) live: AtomicU64,
}

/// The class for `bytes`: the smallest whose blocks hold that many.
#[inline]
pub fn class_of(bytes: u64) -> Option<usize> {
    if bytes <= SMALLEST {
        return Some(0);
    }
    if bytes > LARGEST {
        return None;
    }
    let last = bytes - 1;
    let doubling = 63 - last.leading_zeros() as u64; // 2^doubling <= last
    let quarter = (last >> (doubling - 2)) & 3;
    Some(((doubling - 6) * 4 + quarter + 1) as usize)
}

/// Bytes that a block of the class holds.
#[inline]
pub fn size_of_class(class: usize) -> u64 {
    let (doubling, quarter) = (class as u64 / 4, class as u64 % 4);
    (SMALLEST << doubling) / 4 * (4 + quarter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_fits_its_class_and_not_the_one_below() {
        for bytes in (1..100_000).chain([1 << 20, (1 << 20) + 1, 1 << 30, LARGEST]) {
            let class = class_of(bytes).unwrap();
            assert!(size_of_class(class) >= bytes, "{bytes} in {class}");
            assert!(class == 0 || size_of_class(class - 1) < bytes, "{bytes} in {class}");
        }
        assert_eq!(class_of(LARGEST + 1), None);
        assert_eq!(class_of(LARGEST), Some(CLASSES - 1));
    }

    #[test]
    fn small_sizes_keep_their_alignment() {
        for class in 0..CLASSES {
            assert_eq!(size_of_class(class) % 16, 0);
        }
    }
}
