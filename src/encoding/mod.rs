//! Content codings of files: gzip (RFC 1952) and zstd (RFC 8878), read and written as streams.
//!
//! What is damaged, ends early, needs a large window or expands beyond a ratio that real records reach is a [`Fault`], never a shorter
//! output. Headers that are written carry no name and no time. This page opens no file; streams come in and go out.
//! `stream` is fed piece by piece instead, for bodies of HTTP.

#[cfg(feature = "proxy")]
pub mod stream;

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far an input may expand. FHIR reaches 30, exports that repeat themselves 100; a bomb has 1000 and more.
const RATIO_MAX: u64 = 200;
/// Expanded bytes that are always allowed, so that tiny inputs are not judged by their headers.
const FREE_BYTES: u64 = 16 * 1024 * 1024;
/// Largest window of a zstd frame, as a power of two: 8 MiB, what RFC 8878 section 3.1.1.1.2 asks every decoder to bear.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// What level costs no more time than the rewriting does.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// A coding, as the suffix of a file's name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coding {
    /// None.
    #[default]
    Plain,
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Coding {
    /// The coding that a lower-case file name says, and the name without its suffix.
    pub fn of(name: &str) -> (Coding, &str) {
        for (suffix, coding) in [(".gz", Coding::Gzip), (".zst", Coding::Zstd)] {
            if let Some(inner) = name.strip_suffix(suffix) {
                return (coding, inner);
            }
        }
        (Coding::Plain, name)
    }
}

/// Why a coded input cannot be read. Travels inside an [`io::Error`]; see [`Fault::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not of this coding, damaged, or it ends in the middle.
    #[error("the compressed input is damaged, incomplete or needs a window over 8 MiB")]
    Damaged,
    /// Over the ratio.
    #[error("the compressed input expands too far")]
    Expands,
}

impl Fault {
    /// The fault inside an error of a [`reader`], if it is one.
    pub fn of(error: &io::Error) -> Option<Fault> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).copied()
    }
}

/// Decodes a stream. All members or frames of it are read, and it must end with a whole one.
pub fn reader<'r>(input: impl BufRead + Send + 'r, coding: Coding) -> io::Result<Box<dyn BufRead + Send + 'r>> {
    let consumed = Arc::new(AtomicU64::new(0));
    let counted = Counted { inner: input, consumed: Arc::clone(&consumed) };
    let decoder: Box<dyn Read + Send + 'r> = match coding {
        Coding::Plain => return Ok(Box::new(counted.inner)),
        Coding::Gzip => Box::new(MultiGzDecoder::new(counted)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(counted)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok(Box::new(BufReader::with_capacity(CHUNK_BYTES, Guarded { decoder, consumed, produced: 0 })))
}

/// Counts what the decoder takes.
struct Counted<R> {
    inner: R,
    consumed: Arc<AtomicU64>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        self.inner.consume(n);
    }
}

/// Turns what a decoder says into faults, and holds the ratio.
struct Guarded<'r> {
    decoder: Box<dyn Read + Send + 'r>,
    consumed: Arc<AtomicU64>,
    produced: u64,
}

impl Read for Guarded<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = match self.decoder.read(into) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            // What the disk says has a number of the system; what the decoder says has none.
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            Err(_) => return Err(io::Error::other(Fault::Damaged)),
        };
        self.produced += n as u64;
        let consumed = self.consumed.load(Ordering::Relaxed);
        if n == 0 && !into.is_empty() && consumed == 0 {
            return Err(io::Error::other(Fault::Damaged)); // not even a header
        }
        if self.produced > FREE_BYTES && self.produced / RATIO_MAX > consumed {
            return Err(io::Error::other(Fault::Expands));
        }
        Ok(n)
    }
}

/// Encodes a stream. Nothing is whole before [`finish`](Writer::finish).
pub enum Writer<W: Write> {
    /// As it is.
    Plain(W),
    /// One member without name or time.
    Gzip(GzEncoder<W>),
    /// One frame.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Writer<W> {
    /// An encoder onto `sink`.
    pub fn new(sink: W, coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Plain => Writer::Plain(sink),
            Coding::Gzip => Writer::Gzip(GzBuilder::new().mtime(0).write(sink, Compression::new(GZIP_LEVEL))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(sink, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Writer::Zstd(encoder)
            }
        })
    }

    /// Writes the end of the stream and gives the sink back.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Writer::Plain(sink) => Ok(sink),
            Writer::Gzip(encoder) => encoder.finish(),
            Writer::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Writer::Plain(sink) => sink.write(bytes),
            Writer::Gzip(encoder) => encoder.write(bytes),
            Writer::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Writer::Plain(sink) => sink.flush(),
            Writer::Gzip(encoder) => encoder.flush(),
            Writer::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

    fn encode(plain: &[u8], coding: Coding) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), coding).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn decode(coded: &[u8], coding: Coding) -> Result<Vec<u8>, Option<Fault>> {
        let mut plain = Vec::new();
        let mut reader = reader(coded, coding).unwrap();
        reader.read_to_end(&mut plain).map(|_| plain).map_err(|error| Fault::of(&error))
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        for coding in BOTH {
            let two = [encode(b"one ", coding), encode(b"two", coding)].concat();
            assert_eq!(decode(&two, coding), Ok(b"one two".to_vec()), "{coding:?}");
        }
        // No flags, no time: nothing is told but that it is gzip.
        assert_eq!(encode(b"x", Coding::Gzip)[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_shorter_input() {
        let text = b"{\"resourceType\":\"Patient\"}\n".repeat(50);
        for coding in BOTH {
            let whole = encode(&text, coding);
            for length in 0..whole.len() {
                assert_eq!(decode(&whole[..length], coding), Err(Some(Fault::Damaged)), "{coding:?} {length}");
            }
            let mut changed = whole.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert_eq!(decode(&changed, coding), Err(Some(Fault::Damaged)), "{coding:?}");
            let trailed = [whole, b"trailing".to_vec()].concat();
            assert_eq!(decode(&trailed, coding), Err(Some(Fault::Damaged)), "{coding:?}");
        }
    }

    #[test]
    fn what_expands_beyond_reason_is_no_input() {
        let zeros = vec![b' '; 64 * 1024 * 1024];
        for coding in BOTH {
            assert_eq!(decode(&encode(&zeros, coding), coding), Err(Some(Fault::Expands)), "{coding:?}");
        }
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        wide.write_all(&vec![b'x'; 4096]).unwrap();
        let wide = wide.finish().unwrap();
        assert_eq!(decode(&wide, Coding::Zstd), Err(Some(Fault::Damaged)));
    }
}
