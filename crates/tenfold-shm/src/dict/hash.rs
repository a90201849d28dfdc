//! The hash of a key: the same in all processes and all builds.
//!
//! Wang Yi's folded multiplication (wyhash): 16 bytes a step, a 64×64→128 bit product whose halves
//! are xored. The seeds are fixed, so that processes agree without a word in shared memory; somebody
//! who chooses a dict's keys can make them collide, and slows down just that dict.

const SEED: [u64; 3] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3];

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn eight(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline(always)]
fn four(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(word))
}

/// The hash of `key`: 32 bits, since a table has no more positions.
#[inline]
pub(super) fn hash(key: &[u8]) -> u32 {
    let wide = wide(key);
    (wide ^ wide >> 32) as u32
}

#[inline]
fn wide(key: &[u8]) -> u64 {
    let len = key.len();
    let mut state = SEED[0];
    let (a, b) = match len {
        0 => (0, 0),
        // The first, the middle and the last byte: all there are.
        1..=3 => (u64::from(key[0]) << 16 | u64::from(key[len / 2]) << 8 | u64::from(key[len - 1]), 0),
        4..=7 => (four(key, 0), four(key, len - 4)),
        8..=16 => (eight(key, 0), eight(key, len - 8)),
        _ => {
            let mut at = 0;
            while len - at > 16 {
                state = fold(eight(key, at) ^ SEED[1], eight(key, at + 8) ^ state);
                at += 16;
            }
            (eight(key, len - 16), eight(key, len - 8))
        }
    };
    fold(SEED[1] ^ len as u64, fold(a ^ SEED[1], b ^ state ^ SEED[2]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_byte_counts() {
        for len in 1..80 {
            let key: Vec<u8> = (0..len).collect();
            let mut seen = HashSet::from([wide(&key)]);
            for at in 0..key.len() {
                for bit in 0..8 {
                    let mut other = key.clone();
                    other[at] ^= 1 << bit;
                    assert!(seen.insert(wide(&other)), "length {len}, byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn numbers_spread_over_low_and_high_bits() {
        let (mut low, mut high) = (HashSet::new(), HashSet::new());
        for number in 0..4096_u64 {
            let hash = hash(&number.to_le_bytes());
            low.insert(hash & 0xffff);
            high.insert(hash >> 16);
        }
        // Of 4096 throws at 65536 places, about 3970 are hit by chance.
        assert!(low.len() > 3850 && high.len() > 3850, "{} {}", low.len(), high.len());
    }

    #[test]
    fn it_never_changes() {
        // Processes of one family may be different builds of one program.
        let known = [&b""[..], b"a", b"ab\0", b"12345678", b"a key of more than sixteen bytes"].map(hash);
        assert_eq!(known, [967_997_835, 1_928_917_667, 273_974_652, 2_467_095_545, 1_215_551_006]);
    }
}
