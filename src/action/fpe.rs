//! `fpe`: a value becomes another of the same form, by FF1 (NIST SP 800-38G revision 1) over its symbols.
//!
//! Symbols of the alphabet are permuted, separators stand where they stood; a letter or digit outside the alphabet is refused, because it
//! would cross in clear. Whole numbers are permuted within the range of their datatype (cycle-walking), decimals keep their scale.
//! Fewer than 10^6 possible values are refused: there a list of all of them is short (section 5.1).
//!
//! FF1 authenticates nothing and marks nothing: what comes back is known by its place alone (design §4), and keys are pinned like ids. The
//! tweak is empty, the class is in the key. `tests/vectors.rs` holds [`Ff1`] to NIST, ACVP and Wycheproof and to another implementation.

use super::No;
use super::number::Number;
use aes::Aes256Enc;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, KeyInit};
use std::fmt;

/// Fewest values of a domain (SP 800-38G r1, section 5.1).
const DOMAIN_MIN: u128 = 1_000_000;
/// Most symbols at a time. The general path is quadratic in them; identifiers have dozens.
pub const NUMERALS_MAX: usize = 1024;
/// Widest half, in bytes, that is reckoned in 128 bits: its `y` then has at most 16 bytes.
const SMALL_BYTES: usize = 12;

const ROUNDS: u8 = 10;
const BLOCK: usize = 16;

/// FF1 under one key, over one radix.
pub struct Ff1<C> {
    cipher: C,
    radix: u32,
}

impl<C> fmt::Debug for Ff1<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ff1(radix {})", self.radix)
    }
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit> Ff1<C> {
    /// `None`: not a key of this cipher, or a radix outside 2 to 2^16.
    pub fn new(key: &[u8], radix: u32) -> Option<Self> {
        let cipher = C::new_from_slice(key).ok()?;
        (2..=1 << 16).contains(&radix).then_some(Ff1 { cipher, radix })
    }

    /// `FF1.Encrypt(K, T, X)`, algorithm 7. Numerals are below the radix, most significant first.
    pub fn encrypt(&self, tweak: &[u8], numerals: &[u32]) -> Result<Vec<u32>, No> {
        self.run(tweak, numerals, true)
    }

    /// `FF1.Decrypt(K, T, X)`, algorithm 8.
    pub fn decrypt(&self, tweak: &[u8], numerals: &[u32]) -> Result<Vec<u32>, No> {
        self.run(tweak, numerals, false)
    }

    fn run(&self, tweak: &[u8], numerals: &[u32], forward: bool) -> Result<Vec<u32>, No> {
        let n = numerals.len();
        if n > NUMERALS_MAX || !self.is_large(n) {
            return Err(No::Domain);
        }
        if numerals.iter().any(|&numeral| numeral >= self.radix) {
            return Err(No::Alphabet);
        }
        let (u, v) = (n / 2, n - n / 2);
        // `b` is the bytes of the largest number of `v` numerals.
        let b = (bits(self.radix, v) as usize).div_ceil(8);
        let prf = Prf::new(self, tweak, n, u, b);
        let (a, z) = numerals.split_at(u);
        Ok(match b {
            ..=SMALL_BYTES => {
                let half = |numerals: &[u32]| {
                    Small(numerals.iter().fold(0, |n, &d| n * u128::from(self.radix) + u128::from(d)))
                };
                self.rounds(&prf, half(a), half(z), (u, v), forward)
            }
            _ => self.rounds(&prf, Large(a.to_vec()), Large(z.to_vec()), (u, v), forward),
        })
    }

    /// Whether `radix^n` reaches 10^6.
    fn is_large(&self, n: usize) -> bool {
        n >= 20 || u128::from(self.radix).saturating_pow(n as u32) >= DOMAIN_MIN
    }

    /// The ten rounds of a Feistel network whose halves are numbers.
    fn rounds<H: Half>(&self, prf: &Prf<'_, C>, mut a: H, mut b: H, (u, v): (usize, usize), forward: bool) -> Vec<u32> {
        let length = |i: u8| if i.is_multiple_of(2) { u } else { v };
        if forward {
            for i in 0..ROUNDS {
                let c = a.plus(&prf.y(i, &b, self.radix), self.radix, length(i), true);
                (a, b) = (b, c);
            }
        } else {
            for i in (0..ROUNDS).rev() {
                let c = b.plus(&prf.y(i, &a, self.radix), self.radix, length(i), false);
                (b, a) = (a, c);
            }
        }
        let mut numerals = a.numerals(self.radix, u);
        numerals.extend(b.numerals(self.radix, v));
        numerals
    }
}

/// `⌈v · log2(radix)⌉`: the bits of the largest number of `v` numerals, exactly.
fn bits(radix: u32, v: usize) -> u64 {
    if radix.is_power_of_two() {
        return v as u64 * u64::from(radix.trailing_zeros());
    }
    // radix^v is no power of two, so the bits of radix^v are those of radix^v - 1.
    let mut power = vec![1u32];
    for _ in 0..v {
        let mut carry = 0u64;
        for limb in &mut power {
            let product = u64::from(*limb) * u64::from(radix) + carry;
            *limb = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            power.push(carry as u32);
        }
    }
    let top = power.last().copied().unwrap_or(1);
    (power.len() as u64) * 32 - u64::from(top.leading_zeros())
}

/// What is the same in all rounds: the CBC-MAC over `P` and the whole blocks of the tweak.
struct Prf<'c, C> {
    cipher: &'c C,
    chained: [u8; BLOCK],
    /// The tail of the tweak and its zeros, up to the place of the round number.
    tail: Vec<u8>,
    b: usize,
    d: usize,
}

impl<'c, C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Prf<'c, C> {
    fn new(ff1: &'c Ff1<C>, tweak: &[u8], n: usize, u: usize, b: usize) -> Self {
        let mut p = [1, 2, 1, 0, 0, 0, 10, u as u8, 0, 0, 0, 0, 0, 0, 0, 0];
        p[3..6].copy_from_slice(&ff1.radix.to_be_bytes()[1..]);
        p[8..12].copy_from_slice(&(n as u32).to_be_bytes());
        p[12..].copy_from_slice(&(tweak.len() as u32).to_be_bytes());
        let mut tail = tweak.to_vec();
        tail.resize((tweak.len() + 1 + b).next_multiple_of(BLOCK) - 1 - b, 0);
        let mut chained = block(&ff1.cipher, p);
        let whole = tail.len() / BLOCK * BLOCK;
        for part in tail[..whole].chunks_exact(BLOCK) {
            chained = chain(&ff1.cipher, chained, part);
        }
        tail.drain(..whole);
        Prf { cipher: &ff1.cipher, chained, tail, b, d: 4 * b.div_ceil(4) + 4 }
    }

    /// `S`: the first `d` bytes of `R || CIPH(R ⊕ 1) || CIPH(R ⊕ 2) ...` of round `i`.
    fn y<H: Half>(&self, i: u8, half: &H, radix: u32) -> Vec<u8> {
        let mut last = self.tail.clone();
        last.push(i);
        let at = last.len();
        last.resize(at + self.b, 0);
        half.write(radix, &mut last[at..]);
        let r = last.chunks_exact(BLOCK).fold(self.chained, |r, part| chain(self.cipher, r, part));
        let mut s = r.to_vec();
        for j in 1..self.d.div_ceil(BLOCK) as u128 {
            s.extend(block(self.cipher, (u128::from_be_bytes(r) ^ j).to_be_bytes()));
        }
        s.truncate(self.d);
        s
    }
}

fn block<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(cipher: &C, bytes: [u8; BLOCK]) -> [u8; BLOCK] {
    let mut block = bytes.into();
    cipher.encrypt_block(&mut block);
    block.into()
}

fn chain<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(
    cipher: &C,
    r: [u8; BLOCK],
    part: &[u8],
) -> [u8; BLOCK] {
    let mut next = r;
    next.iter_mut().zip(part).for_each(|(n, p)| *n ^= p);
    block(cipher, next)
}

/// Half of the numerals, as a number.
trait Half: Sized {
    /// Big-endian, filling `out`.
    fn write(&self, radix: u32, out: &mut [u8]);
    /// `(self ± y) mod radix^m`, `y` big-endian.
    fn plus(self, y: &[u8], radix: u32, m: usize, add: bool) -> Self;
    /// `m` numerals.
    fn numerals(self, radix: u32, m: usize) -> Vec<u32>;
}

/// In 128 bits: everything that people write.
struct Small(u128);

impl Half for Small {
    fn write(&self, _: u32, out: &mut [u8]) {
        let bytes = self.0.to_be_bytes();
        out.copy_from_slice(&bytes[BLOCK - out.len()..]);
    }

    fn plus(self, y: &[u8], radix: u32, m: usize, add: bool) -> Self {
        let modulus = u128::from(radix).pow(m as u32); // below 2^97: `b` is at most 12 bytes
        let y = y.iter().fold(0u128, |n, &byte| n << 8 | u128::from(byte)) % modulus;
        Small((self.0 + if add { y } else { modulus - y }) % modulus)
    }

    fn numerals(self, radix: u32, m: usize) -> Vec<u32> {
        let mut rest = self.0;
        let mut numerals: Vec<u32> = (0..m)
            .map(|_| {
                let numeral = (rest % u128::from(radix)) as u32;
                rest /= u128::from(radix);
                numeral
            })
            .collect();
        numerals.reverse();
        numerals
    }
}

/// As numerals, of any length: adding modulo `radix^m` is adding the last `m` numerals.
struct Large(Vec<u32>);

impl Half for Large {
    fn write(&self, radix: u32, out: &mut [u8]) {
        out.fill(0);
        for &numeral in &self.0 {
            let mut carry = numeral;
            for byte in out.iter_mut().rev() {
                let sum = u32::from(*byte) * radix + carry; // at most 255 · 2^16 + 2^24
                *byte = sum as u8;
                carry = sum >> 8;
            }
        }
    }

    fn plus(self, y: &[u8], radix: u32, m: usize, add: bool) -> Self {
        let mut y = y.to_vec();
        let mut sum = vec![0; m];
        let mut carry = 0i64;
        for (place, digit) in sum.iter_mut().enumerate().rev() {
            // The next numeral of `y`: what is left over when all of it is divided by the radix.
            let mut left = 0u32;
            for byte in &mut y {
                let part = left << 8 | u32::from(*byte); // left is below 2^16
                *byte = (part / radix) as u8;
                left = part % radix;
            }
            let step = i64::from(self.0[place]) + if add { i64::from(left) } else { -i64::from(left) } + carry;
            carry = step.div_euclid(i64::from(radix));
            *digit = step.rem_euclid(i64::from(radix)) as u32;
        }
        Large(sum)
    }

    fn numerals(self, _: u32, _: usize) -> Vec<u32> {
        self.0
    }
}

/// The symbols of a text that are permuted, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alphabet(Vec<char>);

impl Alphabet {
    /// `digits`, `hex`, `lower`, `upper`, `alphanumeric` (both cases), `lower-alphanumeric`, `upper-alphanumeric`, or the symbols themselves:
    /// 2 to 256 letters and digits, each once. `None` otherwise.
    pub fn new(name: &str) -> Option<Alphabet> {
        let of = |ranges: &[std::ops::RangeInclusive<char>]| ranges.iter().cloned().flatten().collect();
        let symbols: Vec<char> = match name {
            "digits" => of(&['0'..='9']),
            "hex" => of(&['0'..='9', 'a'..='f']),
            "lower" => of(&['a'..='z']),
            "upper" => of(&['A'..='Z']),
            "alphanumeric" => of(&['0'..='9', 'A'..='Z', 'a'..='z']),
            "lower-alphanumeric" => of(&['0'..='9', 'a'..='z']),
            "upper-alphanumeric" => of(&['0'..='9', 'A'..='Z']),
            symbols => symbols.chars().collect(),
        };
        let once = symbols.iter().enumerate().all(|(at, c)| !symbols[..at].contains(c));
        let fits = (2..=256).contains(&symbols.len()) && once && symbols.iter().all(|c| c.is_alphanumeric());
        fits.then_some(Alphabet(symbols))
    }

    /// How many symbols.
    pub fn radix(&self) -> u32 {
        self.0.len() as u32
    }

    /// The fewest symbols of a value that FF1 takes.
    pub fn least_symbols(&self) -> u32 {
        (1..).find(|&n| u128::from(self.radix()).pow(n) >= DOMAIN_MIN).unwrap_or(u32::MAX)
    }
}

/// What may stand between symbols, and stays: it is layout, not content.
fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '/' | '_' | ':' | '(' | ')' | '+' | ',' | '#' | '*' | '|')
}

/// The key of one class: for text of one alphabet, and for numbers.
pub struct Keyed {
    alphabet: Alphabet,
    text: Ff1<Aes256Enc>,
    numbers: Ff1<Aes256Enc>,
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed(..)")
    }
}

/// Whole numbers up to these bounds stay below them, so that a reader's integer still holds what comes out: 32 bits with and without
/// sign, what a double holds exactly, 18 digits, everything that we read.
const WHOLE_BANDS: [i128; 5] =
    [i32::MAX as i128, u32::MAX as i128, (1 << 53) - 1, 10i128.pow(18) - 1, 10i128.pow(36) - 1];
/// The same for the digits of decimals: what a double holds, what FHIR promises, everything that we read.
const DECIMAL_BANDS: [i128; 3] = [10i128.pow(15) - 1, 10i128.pow(18) - 1, 10i128.pow(36) - 1];

impl Keyed {
    /// Under a key of its own (`DomainKeys::fpe_key`).
    pub fn new(key: &[u8; 32], alphabet: Alphabet) -> Keyed {
        let ff1 =
            |radix| Ff1::new(key, radix).expect("32 bytes are a key of AES-256, and the radix is within 2 and 2^16");
        Keyed { text: ff1(alphabet.radix()), numbers: ff1(2), alphabet }
    }

    /// A text: its symbols permuted, its separators where they were.
    pub fn text(&self, value: &str, forward: bool) -> Result<String, No> {
        let mut numerals = Vec::with_capacity(value.len());
        for c in value.chars() {
            match self.alphabet.0.iter().position(|&symbol| symbol == c) {
                Some(at) => numerals.push(at as u32),
                None if is_separator(c) => {}
                None => return Err(No::Alphabet),
            }
        }
        let mut other = self.text.run(&[], &numerals, forward)?.into_iter();
        let symbol = |c| if is_separator(c) { Some(c) } else { other.next().map(|n| self.alphabet.0[n as usize]) };
        Ok(value.chars().filter_map(symbol).collect())
    }

    /// A whole number within `least..=most`: another of the same range. Cycle-walking: permuted within the next power of two until it falls into
    /// the range, twice at most on average.
    pub fn whole(&self, value: i128, (least, most): (i128, i128), forward: bool) -> Result<i128, No> {
        let size = most.checked_sub(least).filter(|size| *size >= DOMAIN_MIN as i128 - 1).ok_or(No::Domain)? as u128;
        let place = u128::try_from(value.checked_sub(least).ok_or(No::Number)?).map_err(|_| No::Number)?;
        if place > size {
            return Err(No::Number);
        }
        let width = (u128::BITS - size.leading_zeros()) as usize;
        let mut numerals: Vec<u32> = (0..width).rev().map(|bit| (place >> bit & 1) as u32).collect();
        loop {
            numerals = self.numbers.run(&[], &numerals, forward)?;
            let other = numerals.iter().fold(0u128, |n, &bit| n << 1 | u128::from(bit));
            if other <= size {
                return Ok(least + other as i128);
            }
        }
    }

    /// A number as JSON spells it. Of a FHIR integer `range` is that of its type. Without one, whole numbers stay within their band (31, 32 or 53 bits,
    /// 53, 18 or 36 digits; negative ones likewise), decimals keep their scale and stay within 15, 18 or 36 digits; an exponent is worked in.
    pub fn number(&self, text: &str, range: Option<(i128, i128)>, forward: bool) -> Result<String, No> {
        let number = Number::parse(text).ok_or(No::Number)?;
        let other = match range {
            Some(range) if number.scale == 0 => self.whole(number.unscaled, range, forward)?,
            Some(_) => return Err(No::Number),
            None if number.scale == 0 => self.banded(number.unscaled, &WHOLE_BANDS, forward)?,
            None => self.banded(number.unscaled, &DECIMAL_BANDS, forward)?,
        };
        Ok(Number { unscaled: other, scale: number.scale }.to_string())
    }

    /// Within the band of its size and sign: `0..=first`, `first+1..=second` ..., and the same below zero.
    fn banded(&self, value: i128, bands: &[i128], forward: bool) -> Result<i128, No> {
        let mut least = 0;
        for &most in bands {
            if value >= least && value <= most {
                return self.whole(value, (least, most), forward);
            }
            let below = (-most, -least.max(1));
            if value >= below.0 && value <= below.1 {
                return self.whole(value, below, forward);
            }
            least = most + 1;
        }
        Err(No::Number)
    }
}
