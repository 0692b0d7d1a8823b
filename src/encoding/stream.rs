//! Content codings of HTTP bodies, fed piece by piece: gzip (RFC 1952), deflate (RFC 1950), br (RFC 7932), zstd (RFC 8878).
//!
//! Slices in, slices out, cut anywhere. A step makes at most [`STEP_BYTES`], so that a few coded bytes never become more
//! than that at once, and what expands beyond a ratio that real records reach, or beyond any honest length, is a [`Fault`].
//! So is what is damaged, ends early or goes on behind its end: never a shorter body.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::write::{GzEncoder, MultiGzDecoder};
use flate2::{Compression, Decompress, FlushDecompress, GzBuilder, Status};
use std::io::Write;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation};

/// Most bytes that one step makes.
pub const STEP_BYTES: usize = 32 * 1024;
/// How far a body may expand. FHIR reaches 30, exports that repeat themselves 100; a bomb has 1000 and more.
const RATIO_MAX: u64 = 200;
/// Expanded bytes that are always allowed, so that tiny bodies are not judged by their headers.
const FREE_BYTES: u64 = 16 * 1024 * 1024;
/// Longest expanded body, in bytes: no bulk file of the field comes near it.
const EXPANDED_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Largest window of a zstd frame, as a power of two: 8 MiB, what RFC 9659 allows in HTTP. That of br ends at 16 MiB by itself.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// What levels cost less time than the rewriting does.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// A coding that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`
    Gzip,
    /// `deflate`, which is the zlib format.
    Deflate,
    /// `br`
    Br,
    /// `zstd`
    Zstd,
}

impl Coding {
    /// By its name in `Content-Encoding` (RFC 9110 §8.4.1).
    pub fn named(name: &[u8]) -> Option<Coding> {
        let names = [
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("br", Coding::Br),
            ("zstd", Coding::Zstd),
        ];
        names.into_iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, coding)| coding)
    }
}

/// Why a coded body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not of this coding, damaged, cut, or something follows its end.
    Damaged,
    /// It expands too far.
    Expands,
}

/// Reads one coded body.
pub struct Decoder {
    kind: Kind,
    scratch: Vec<u8>,
    taken: u64,
    made: u64,
    /// It stands at an end: of the body, or of a member or frame that another may follow.
    ended: bool,
    /// The last step made as much as it may: there may be more without further input.
    full: bool,
}

enum Kind {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Deflate(Decompress),
    Br(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(ZstdDecoder<'static>),
}

impl Decoder {
    /// At the beginning of a body.
    pub fn new(coding: Coding) -> Result<Decoder, Fault> {
        let kind = match coding {
            Coding::Gzip => Kind::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Coding::Deflate => Kind::Deflate(Decompress::new(true)),
            Coding::Br => Kind::Br(Box::new(BrotliState::new_strict(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ))),
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|_| Fault::Damaged)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(|_| Fault::Damaged)?;
                Kind::Zstd(decoder)
            }
        };
        Ok(Decoder { kind, scratch: vec![0; STEP_BYTES], taken: 0, made: 0, ended: false, full: false })
    }

    /// Takes some of the input, appends what it says, and tells how much it took. Nothing taken and nothing appended: it
    /// wants more input.
    pub fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Fault> {
        if input.is_empty() && !self.full {
            return Ok(0);
        }
        let before = output.len();
        let taken = match &mut self.kind {
            Kind::Gzip(decoder) => {
                let taken = decoder.write(input).map_err(|_| Fault::Damaged)?;
                if taken == input.len() {
                    decoder.flush().map_err(|_| Fault::Damaged)?;
                }
                output.append(decoder.get_mut());
                taken
            }
            Kind::Deflate(decoder) => {
                let (taken, made) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, &mut self.scratch, FlushDecompress::None);
                let made = (decoder.total_out() - made) as usize;
                output.extend_from_slice(&self.scratch[..made]);
                self.full = made == STEP_BYTES;
                self.ended = status.map_err(|_| Fault::Damaged)? == Status::StreamEnd;
                (decoder.total_in() - taken) as usize
            }
            Kind::Br(decoder) => {
                let (mut taken, mut made, mut total) = (0, 0, 0);
                let result = BrotliDecompressStream(
                    &mut input.len(),
                    &mut taken,
                    input,
                    &mut STEP_BYTES.clone(),
                    &mut made,
                    &mut self.scratch,
                    &mut total,
                    decoder,
                );
                output.extend_from_slice(&self.scratch[..made]);
                self.full = matches!(result, BrotliResult::NeedsMoreOutput);
                self.ended = matches!(result, BrotliResult::ResultSuccess);
                if matches!(result, BrotliResult::ResultFailure) {
                    return Err(Fault::Damaged);
                }
                taken
            }
            Kind::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, &mut self.scratch).map_err(|_| Fault::Damaged)?;
                output.extend_from_slice(&self.scratch[..status.bytes_written]);
                self.full = status.bytes_written == STEP_BYTES;
                self.ended = status.remaining == 0;
                status.bytes_read
            }
        };
        let made = output.len() - before;
        if taken == 0 && made == 0 && !input.is_empty() {
            return Err(Fault::Damaged); // behind the end
        }
        self.taken += taken as u64;
        self.made += made as u64;
        let expands = self.made > FREE_BYTES && self.made / RATIO_MAX > self.taken;
        if expands || self.made > EXPANDED_BYTES_MAX { Err(Fault::Expands) } else { Ok(taken) }
    }

    /// There is no more input. An error unless it ended where a body ends.
    pub fn finish(&mut self, output: &mut Vec<u8>) -> Result<(), Fault> {
        while self.full {
            self.step(&[], output)?;
        }
        if let Kind::Gzip(decoder) = &mut self.kind {
            decoder.try_finish().map_err(|_| Fault::Damaged)?;
            output.append(decoder.get_mut());
            self.ended = self.taken > 0;
        }
        if self.ended { Ok(()) } else { Err(Fault::Damaged) }
    }
}

/// A coding that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `gzip`
    Gzip,
    /// `zstd`
    Zstd,
}

impl Packing {
    /// Its name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }
}

/// Writes one coded body.
pub enum Encoder {
    /// One member without name or time.
    Gzip(GzEncoder<Vec<u8>>),
    /// One frame.
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// At the beginning of a body.
    pub fn new(packing: Packing) -> std::io::Result<Encoder> {
        Ok(match packing {
            Packing::Gzip => Encoder::Gzip(GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(GZIP_LEVEL))),
            Packing::Zstd => Encoder::Zstd(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    /// What these bytes become, so far that they can be read at the other side.
    pub fn write(&mut self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(encoder) => {
                encoder.write_all(plain)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Encoder::Zstd(encoder) => {
                encoder.write_all(plain)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// The end of the body, after these last bytes.
    pub fn finish(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(mut encoder) => {
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Encoder::Zstd(mut encoder) => {
                encoder.write_all(plain)?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hello`, by the reference implementation of br.
    const BR: &[u8] = b"\x0b\x02\x80hello\x03";

    fn coded(plain: &[u8], coding: Coding) -> Vec<u8> {
        match coding {
            Coding::Gzip => Encoder::new(Packing::Gzip).unwrap().finish(plain).unwrap(),
            Coding::Zstd => Encoder::new(Packing::Zstd).unwrap().finish(plain).unwrap(),
            Coding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::new(6));
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            // Uncompressed meta-blocks (RFC 7932 §9.2) do for any text of up to 64 KiB.
            Coding::Br => {
                let length = plain.len() - 1;
                let header = (length as u32) << 4 | 1 << 20; // WBITS 16, not last, four nibbles, uncompressed
                [&header.to_le_bytes()[..3], plain, &[0x03]].concat()
            }
        }
    }

    fn read(coded: &[u8], coding: Coding, piece: usize) -> Result<Vec<u8>, Fault> {
        let (mut decoder, mut plain) = (Decoder::new(coding)?, Vec::new());
        for mut piece in coded.chunks(piece.max(1)) {
            loop {
                let before = plain.len();
                let taken = decoder.step(piece, &mut plain)?;
                piece = &piece[taken..];
                assert!(plain.len() - before <= 2 * STEP_BYTES);
                if taken == 0 && plain.len() == before {
                    break;
                }
            }
            assert!(piece.is_empty());
        }
        decoder.finish(&mut plain).map(|()| plain)
    }

    const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Br, Coding::Zstd];

    #[test]
    fn a_body_is_read_however_it_is_cut() {
        assert_eq!(read(BR, Coding::Br, 1).unwrap(), b"hello");
        let text = b"{\"resourceType\":\"Patient\"}\n".repeat(2000);
        for coding in ALL {
            for piece in [1, 7, 4096, 1 << 20] {
                assert_eq!(read(&coded(&text, coding), coding, piece).as_deref(), Ok(&text[..]), "{coding:?} {piece}");
            }
        }
        for coding in [Coding::Gzip, Coding::Zstd] {
            let two = [coded(b"one ", coding), coded(b"two", coding)].concat();
            assert_eq!(read(&two, coding, 3).as_deref(), Ok(&b"one two"[..]), "{coding:?}");
        }
    }

    #[test]
    fn what_is_cut_or_goes_on_is_no_shorter_body() {
        let text = b"{\"resourceType\":\"Patient\"}\n".repeat(50);
        for coding in ALL {
            let whole = coded(&text, coding);
            for length in 0..whole.len() {
                assert_eq!(read(&whole[..length], coding, 1 << 20), Err(Fault::Damaged), "{coding:?} {length}");
            }
            let trailed = [whole, b"trailing".to_vec()].concat();
            for piece in [1, 1 << 20] {
                assert_eq!(read(&trailed, coding, piece), Err(Fault::Damaged), "{coding:?}");
            }
            assert_eq!(read(b"{\"resourceType\":\"Patient\"}", coding, 5), Err(Fault::Damaged), "{coding:?}");
        }
    }

    #[test]
    fn what_expands_beyond_reason_is_no_body() {
        let blanks = vec![b' '; 64 * 1024 * 1024];
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            assert_eq!(read(&coded(&blanks, coding), coding, 4096), Err(Fault::Expands), "{coding:?}");
        }
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        wide.write_all(&[b'x'; 4096]).unwrap();
        assert_eq!(read(&wide.finish().unwrap(), Coding::Zstd, 4096), Err(Fault::Damaged));
    }

    #[test]
    fn what_is_written_is_read_batch_by_batch() {
        for (packing, coding) in [(Packing::Gzip, Coding::Gzip), (Packing::Zstd, Coding::Zstd)] {
            let mut encoder = Encoder::new(packing).unwrap();
            let first = encoder.write(b"first ").unwrap();
            let (mut decoder, mut early, mut taken) = (Decoder::new(coding).unwrap(), Vec::new(), 0);
            while taken < first.len() {
                taken += decoder.step(&first[taken..], &mut early).unwrap();
            }
            assert_eq!(early, b"first ", "a batch does not wait for the next");
            let whole = [first, encoder.finish(b"last").unwrap()].concat();
            assert_eq!(read(&whole, coding, 2).as_deref(), Ok(&b"first last"[..]));
        }
    }
}
