//! HTTP/2 written by hand (RFC 9113), so that it can be wrong. HPACK (RFC 7541) without its table and without Huffman, unless a
//! test writes such bytes itself.

use super::{Http, World};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The client's preface and its settings.
pub fn preface(settings: &[u8]) -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, settings)].concat()
}

/// A header block: each field literal, not indexed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let string = |text: &str| {
        let mut out = Vec::new();
        let mut rest = text.len();
        if rest < 127 {
            out.push(rest as u8);
        } else {
            out.push(127);
            rest -= 127;
            while rest >= 128 {
                out.push(rest as u8 | 128);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
        out.extend_from_slice(text.as_bytes());
        out
    };
    fields.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

/// The four fields of an honest read, and more.
pub fn read<'f>(more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let honest = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/fhir/Patient/1")];
    [&honest[..], more].concat()
}

/// A request without a body, on a stream.
pub fn ask(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(fields))
}

/// What a connection came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// Status of the first answer.
    pub status: Option<u16>,
    /// Whether a stream was reset.
    pub reset: bool,
    /// Whether the connection was given up.
    pub gone: bool,
}

/// A connection with these bytes on it.
pub async fn open(world: &World, bytes: &[u8]) -> TlsStream<TcpStream> {
    let mut stream = world.connect(None, Http::Two).await;
    let _ = stream.write_all(bytes).await; // the other side may have closed before the last of them
    let _ = stream.flush().await;
    stream
}

/// Sends bytes and reads until an answer has begun, the connection ends, or nothing comes for a while.
pub async fn send(world: &World, bytes: &[u8]) -> Came {
    let mut stream = open(world, bytes).await;
    let (mut came, mut got) = (Came::default(), Vec::new());
    while came == Came::default() {
        match tokio::time::timeout(Duration::from_millis(600), stream.read_buf(&mut got)).await {
            Err(_) => break,
            Ok(Ok(0) | Err(_)) => {
                came.gone = true;
                break;
            }
            Ok(Ok(_)) => {}
        }
        while got.len() >= 9 {
            let length = usize::from(got[0]) << 16 | usize::from(got[1]) << 8 | usize::from(got[2]);
            if got.len() < 9 + length {
                break;
            }
            match got[3] {
                HEADERS => came.status = Some(status(&got[9..9 + length])),
                RST_STREAM => came.reset = true,
                GOAWAY => came.gone = true,
                _ => {}
            }
            got.drain(..9 + length);
        }
    }
    came
}

/// The status at the beginning of a header block: an entry of the static table, or three digits of Huffman's code.
fn status(block: &[u8]) -> u16 {
    if block[0] & 0x80 != 0 {
        return [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] & 0x7f) - 8];
    }
    let bits: Vec<bool> =
        block[2..5].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let take = |length: usize| bits[at..at + length].iter().fold(0, |sum, &bit| sum << 1 | u16::from(bit));
        let (digit, length) = if take(5) < 3 { (take(5), 5) } else { (take(6) - 22, 6) };
        status = status * 10 + digit;
        at += length;
    }
    status
}
