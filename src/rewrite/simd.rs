//! The three questions that the scanner asks of 32 bytes at a time, answered by the processor's widest registers or by plain arithmetic.
//!
//! This is the only page of the project with `unsafe`, and `tests/tidy.rs` keeps it so. What is unsafe is small: calling a
//! function that was compiled for AVX2, after asking the processor once per unit whether it has it, and loading 32 bytes from a
//! reference to 32 bytes. Nothing here computes an address.
//!
//! `Plain` is the safe twin: the same answers bit by bit, held equal by a property below and by a fuzz target. It is what runs
//! on every other processor.

#![allow(unsafe_code)]

/// How many bytes are looked at together.
pub const WIDTH: usize = 32;

/// Thirty-two bytes of the input.
pub type Chunk = [u8; WIDTH];

/// The questions. In each answer bit `i` is about byte `i`.
pub trait Search: Copy {
    /// Where text in quotes cannot simply go on: `"`, `\` and control characters below space.
    fn stops(self, chunk: &Chunk) -> u32;
    /// Where white space of JSON stands: space, tab, line feed, carriage return.
    fn blanks(self, chunk: &Chunk) -> u32;
    /// Where two chunks are equal.
    fn equal(self, a: &Chunk, b: &Chunk) -> u32;
}

/// Something to be done with the best search that this processor has.
pub trait Work {
    /// What comes of it.
    type Done;
    /// Does it. Implementations are `#[inline(always)]`, so that all of the work is compiled for the processor's features.
    fn run<S: Search>(self, search: S) -> Self::Done;
}

/// Does the work, with AVX2 where the processor has it.
#[inline]
pub fn with_fastest<W: Work>(work: W) -> W::Done {
    #[cfg(target_arch = "x86_64")]
    if x86::is_there() {
        // SAFETY: the features that `x86::run` is compiled for were found on this processor in the line above.
        return unsafe { x86::run(work) };
    }
    work.run(Plain)
}

/// Arithmetic on words of eight bytes; the answers are exact in every bit.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

const ONES: u64 = 0x0101_0101_0101_0101;
const LOWS: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// The high bit of each byte that is zero.
#[inline(always)]
fn zeros(word: u64) -> u64 {
    !(((word & LOWS) + LOWS) | word | LOWS)
}

/// The high bits of eight bytes as eight bits.
#[inline(always)]
fn gather(highs: u64) -> u32 {
    ((highs >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[inline(always)]
fn by_words(chunk: &Chunk, marks: impl Fn(usize, u64) -> u64) -> u32 {
    let mut bits = 0;
    for (i, word) in chunk.chunks_exact(8).enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        bits |= gather(marks(i, word)) << (8 * i);
    }
    bits
}

impl Search for Plain {
    #[inline(always)]
    fn stops(self, chunk: &Chunk) -> u32 {
        by_words(chunk, |_, w| {
            zeros(w ^ (ONES * b'"' as u64)) | zeros(w ^ (ONES * b'\\' as u64)) | zeros(w & (ONES * 0xe0))
        })
    }

    #[inline(always)]
    fn blanks(self, chunk: &Chunk) -> u32 {
        let is = |w: u64, b: u8| zeros(w ^ (ONES * b as u64));
        by_words(chunk, |_, w| is(w, b' ') | is(w, b'\t') | is(w, b'\n') | is(w, b'\r'))
    }

    #[inline(always)]
    fn equal(self, a: &Chunk, b: &Chunk) -> u32 {
        by_words(a, |i, w| zeros(w ^ u64::from_le_bytes(b[8 * i..8 * i + 8].try_into().expect("eight bytes"))))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Chunk, Search, Work};
    use std::arch::x86_64::*;

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
    }

    /// Proof that `is_there` said yes: made only by `run`, below.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    /// # Safety
    /// `is_there` must have said yes.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) unsafe fn run<W: Work>(work: W) -> W::Done {
        work.run(Avx2(()))
    }

    #[inline(always)]
    fn load(chunk: &Chunk) -> __m256i {
        // SAFETY: the reference is to 32 readable bytes, the load needs no alignment, and an `Avx2` is at hand wherever this is called.
        unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) }
    }

    impl Search for Avx2 {
        #[inline(always)]
        fn stops(self, chunk: &Chunk) -> u32 {
            let v = load(chunk);
            // SAFETY: `self` proves AVX2; arithmetic on registers.
            unsafe {
                let quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b'"' as i8));
                let slash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b'\\' as i8));
                let control = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v);
                _mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(quote, slash), control)) as u32
            }
        }

        #[inline(always)]
        fn blanks(self, chunk: &Chunk) -> u32 {
            let v = load(chunk);
            // SAFETY: `self` proves AVX2; arithmetic on registers.
            unsafe {
                let is = |b: u8| _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b as i8));
                let lines = _mm256_or_si256(is(b'\n'), is(b'\r'));
                _mm256_movemask_epi8(_mm256_or_si256(lines, _mm256_or_si256(is(b' '), is(b'\t')))) as u32
            }
        }

        #[inline(always)]
        fn equal(self, a: &Chunk, b: &Chunk) -> u32 {
            let (a, b) = (load(a), load(b));
            // SAFETY: `self` proves AVX2; arithmetic on registers.
            unsafe { _mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)) as u32 }
        }
    }
}

/// The answers about two chunks: for the tests that hold the twins equal.
#[doc(hidden)]
pub fn answers(a: &Chunk, b: &Chunk) -> [[u32; 3]; 2] {
    struct Ask<'c>(&'c Chunk, &'c Chunk);
    impl Work for Ask<'_> {
        type Done = [u32; 3];
        #[inline(always)]
        fn run<S: Search>(self, search: S) -> [u32; 3] {
            [search.stops(self.0), search.blanks(self.0), search.equal(self.0, self.1)]
        }
    }
    [with_fastest(Ask(a, b)), Ask(a, b).run(Plain)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expected(a: &Chunk, b: &Chunk) -> [u32; 3] {
        let bits = |holds: &dyn Fn(usize) -> bool| (0..WIDTH).map(|i| u32::from(holds(i)) << i).sum();
        [
            bits(&|i| a[i] == b'"' || a[i] == b'\\' || a[i] < 0x20),
            bits(&|i| matches!(a[i], b' ' | b'\t' | b'\n' | b'\r')),
            bits(&|i| a[i] == b[i]),
        ]
    }

    #[test]
    fn every_byte_at_every_place_is_told_right_by_both_twins() {
        for byte in 0..=255 {
            for at in 0..WIDTH {
                for around in [b'a', 0, 0x1f, 0x80, 0xff] {
                    let (mut a, b) = ([around; WIDTH], [byte; WIDTH]);
                    a[at] = byte;
                    assert_eq!(answers(&a, &b), [expected(&a, &b); 2], "{byte} at {at} in {around}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_twins_agree(a in any::<Chunk>(), b in any::<Chunk>()) {
            prop_assert_eq!(answers(&a, &b), [expected(&a, &b); 2]);
        }
    }
}
