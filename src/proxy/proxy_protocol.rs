//! For whom a load balancer speaks: the PROXY protocol, version 2 (haproxy.org, `proxy-protocol.txt`, §2.2).
//!
//! Only peers that the configuration lists are believed, and they must say it: a listed peer without a well-formed header
//! gets no connection, and nobody else's bytes are read as one. What it says serves to count connections per address and
//! nothing more: no caller is told by it. `parse` is sans-I/O; its additions (TLVs) are skipped, bounded.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The twelve bytes that begin every header: no TLS record and no HTTP method begins so.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const HEAD_BYTES: usize = 16;

/// Longest part after the head, in bytes: addresses take 36 or 216, and a balancer's additions have always fitted.
const REST_BYTES_MAX: usize = 2048;

/// What a header can be found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// The balancer itself asks (a health check), or names no internet address.
    Itself,
    /// This client.
    For(IpAddr),
}

/// How many bytes follow these sixteen; `None`: they begin no header that may be believed.
fn rest(head: &[u8; HEAD_BYTES]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    (head[..12] == SIGNATURE && head[12] >> 4 == 2 && length <= REST_BYTES_MAX).then_some(length)
}

/// Reads a whole header. `None`: an unknown command or family, a datagram, or addresses that are cut.
fn parse(head: &[u8; HEAD_BYTES], rest: &[u8]) -> Option<Spoken> {
    match (head[12] & 0x0f, head[13]) {
        (0, _) => Some(Spoken::Itself),           // LOCAL
        (1, 0x00 | 0x31) => Some(Spoken::Itself), // unspecified, or a Unix socket
        (1, 0x11) => {
            let source: [u8; 4] = rest.get(..12)?[..4].try_into().ok()?;
            Some(Spoken::For(Ipv4Addr::from(source).into()))
        }
        (1, 0x21) => {
            let source: [u8; 16] = rest.get(..36)?[..16].try_into().ok()?;
            Some(Spoken::For(IpAddr::from(Ipv6Addr::from(source)).to_canonical()))
        }
        _ => None,
    }
}

/// Takes the header off a stream, and not a byte more.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Spoken> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let mut additions = vec![0; rest(&head).ok_or_else(malformed)?];
    stream.read_exact(&mut additions).await?;
    parse(&head, &additions).ok_or_else(malformed)
}

/// A range of addresses: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// An address, or an address and the number of bits that count. Bits beyond them must be nought, so that what is
    /// written is what is meant.
    pub fn parse(text: &str) -> Option<Network> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().ok()?;
        let width = width(&base);
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width)?,
            None => width,
        };
        let network = Network { base, bits };
        (network.prefix(number(&base)) == number(&base)).then_some(network)
    }

    /// Whether an address lies within.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(&address) == width(&self.base) && self.prefix(number(&address)) == self.prefix(number(&self.base))
    }

    fn prefix(&self, address: u128) -> u128 {
        let beyond = width(&self.base) - self.bits;
        address.checked_shr(beyond).unwrap_or(0).checked_shl(beyond).unwrap_or(0)
    }
}

fn width(address: &IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_bits()),
        IpAddr::V6(six) => six.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, rest].concat()
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<Spoken>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for more in [&b""[..], b"GET /"] {
            let stream = [bytes, more].concat();
            let mut rest = &stream[..];
            let found = runtime.block_on(read(&mut rest)).ok();
            assert_eq!(found, expected, "{bytes:?}");
            if found.is_some() {
                assert_eq!(rest, more, "not a byte of what follows");
            }
        }
    }

    #[test]
    fn a_header_names_a_client_or_nobody() {
        let four = [10, 1, 2, 3, 127, 0, 0, 1, 0x12, 0x34, 1, 187];
        let six = [[0xfd; 16], [1; 16]].concat().into_iter().chain([1, 2, 3, 4]).collect::<Vec<_>>();
        let client = Some(Spoken::For("10.1.2.3".parse().unwrap()));
        check(&header(0x21, 0x11, &four), client);
        check(&header(0x21, 0x11, &[&four[..], &[4, 0, 1, 0]].concat()), client);
        check(&header(0x21, 0x21, &six), Some(Spoken::For(Ipv6Addr::from([0xfd; 16]).into())));
        check(&header(0x20, 0x00, b""), Some(Spoken::Itself));
        check(&header(0x21, 0x00, b""), Some(Spoken::Itself));
        check(&header(0x21, 0x31, &[0; 216]), Some(Spoken::Itself));
        check(&header(0x21, 0x12, &four), None); // a datagram
        check(&header(0x22, 0x11, &four), None); // an unknown command
        check(&header(0x11, 0x11, &four), None); // another version
        check(&header(0x21, 0x11, &four[..11]), None);
        check(&header(0x21, 0x21, &six[..35]), None);
        check(&header(0x21, 0x11, &vec![0; REST_BYTES_MAX + 1]), None);
        check(
            &header(0x21, 0x11, &[&four[..], &vec![0; REST_BYTES_MAX - 12]].concat()),
            Some(Spoken::For("10.1.2.3".parse().unwrap())),
        );
        check(b"PROXY TCP4 10.1.2.3 127.0.0.1 4660 443\r\n", None);
        check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaa", None);
    }

    #[test]
    fn a_network_is_written_as_it_is_meant() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::/0", "::1", "0.0.0.0"),
            ("0.0.0.0/0", "255.0.0.0", "::1"),
        ] {
            let network = Network::parse(text).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{text}");
            assert!(!network.contains(outside.parse().unwrap()), "{text}");
        }
        for text in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "ten", "", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
