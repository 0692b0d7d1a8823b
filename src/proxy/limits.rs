//! Every bound and timeout of the network shell, in one place: unit in the name or type, reason beside it.
//!
//! What a site may tune stands in [`Tunable`]; the rest are promises. The core's own bounds are `crate::limits`.

use std::num::NonZero;
use std::sync::OnceLock;
use std::time::Duration;

/// What a configuration may set under `limits`.
#[derive(Debug, Clone, Copy)]
pub struct Tunable {
    /// Connections open at once, per listener. More wait in the kernel's backlog. 22 KiB each when idle (measured).
    pub connections: usize,
    /// Of these, from one address (IPv6: one network of 64 bits). More are closed before their handshake. As many as
    /// there are unless a site says less: behind a balancer everybody has one address.
    pub per_address: usize,
    /// Exchanges in flight at once. More are answered 503. Each may hold a resource of 16 MiB and its rewriting.
    pub exchanges: usize,
    /// Threads that serve connections, an event loop each: as many as there are cores for this process.
    pub threads: usize,
    /// How long a reader may take nothing of its answer before the exchange is given up: see [`WRITE_STALL_TIMEOUT`].
    pub stall: Duration,
    /// How long a draining proxy still accepts, so that load balancers see `/readyz` off before ports close.
    pub drain_delay: Duration,
    /// How long open exchanges may take to end once draining. Below the 30 s grace of Kubernetes.
    pub drain_timeout: Duration,
}

impl Default for Tunable {
    fn default() -> Self {
        Tunable {
            connections: 2048,
            per_address: CONNECTIONS_MAX,
            exchanges: 512,
            threads: cores(),
            stall: WRITE_STALL_TIMEOUT,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(25),
        }
    }
}

/// Cores for this process when it was first asked: a quota that changes later must not make a reload another configuration.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX))
}

/// Largest value of `connections` and `exchanges`: file descriptors end near here.
pub const CONNECTIONS_MAX: usize = 1 << 20;

/// Largest value of `threads`: more than the cores of a machine only get in each other's way.
pub const THREADS_MAX: usize = 256;

// -- the listener

/// A TLS handshake that takes longer is dropped. Honest ones take under a second even over satellite links.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP/1 head that takes longer is dropped; also how long a keep-alive connection may be idle. Against slowloris.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest HTTP/1 head, in bytes: one search URL of 16 KiB and headers that honest clients send, doubled. Of header fields
/// hyper takes 100; any other number allocates on every request.
pub const HEAD_BYTES_MAX: usize = 40 * 1024;

/// Largest HTTP/1 read buffer, in bytes. Holds a head.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Largest HTTP/2 header list, in bytes as RFC 9113 §6.5.2 counts them (32 extra a field, so about 490 fields).
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// HTTP/2 receive window of a stream, in bytes. Memory a peer can force: connections x streams x window.
pub const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// HTTP/2 receive window of a connection, in bytes: caps the product above.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Streams open at once on an HTTP/2 connection.
pub const H2_STREAMS_MAX: u32 = 100;

/// Bytes waiting to be sent on a stream before its body is asked for more.
pub const H2_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// Streams reset by the peer before they were accepted (rapid reset, CVE-2023-44487), and by us for its faults
/// (MadeYouReset, CVE-2025-8671), before the connection is closed.
pub const H2_RESETS_MAX: usize = 20;
/// See [`H2_RESETS_MAX`].
pub const H2_LOCAL_RESETS_MAX: usize = 200;

/// HTTP/2 ping interval; a peer that does not answer within [`H2_PING_TIMEOUT`] is gone.
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(25);
/// See [`H2_PING_INTERVAL`].
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A peer that takes no byte for so long is gone: a reader that stalls must not hold a revealed answer in memory.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long and how much of an unread request body is taken in after a refusal, so that the refusal arrives: a socket
/// closed over unread bytes is reset, and the reset destroys the answer.
pub const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
/// See [`LINGER_TIMEOUT`].
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

// -- bodies

/// How much of a rewritten body is held before it is let go, in bytes. A body refused within gives a clean status and
/// nothing has left; one refused later aborts the message. Ordinary resources are 2 to 20 KiB. A reader that takes nothing
/// makes each of its streams hold so much (`tests/floods.rs`).
pub const HOLD_BYTES: usize = 128 * 1024;

/// Largest read buffer of an upstream connection over HTTP/1, in bytes: holds a head of an answer, and as much of a body that
/// nobody takes.
pub const UPSTREAM_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Least number of bytes let go at a time once streaming, unless the sender pauses. One audit line covers a batch, so
/// this also spaces the `fdatasync` calls of a long revealed answer.
pub const BATCH_BYTES: usize = 256 * 1024;

/// Smallest answer that is compressed, in bytes: below it a packet is saved at best.
pub const PACKED_BYTES_MIN: usize = 1024;

/// A body that brings nothing for so long is cut. Bulk exports pause while the server reads its disk.
pub const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);

// -- the upstream

/// Default time to connect, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Default time from the end of the request to the head of the answer. FHIR searches of a minute exist.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Default time for a whole exchange. Long enough for a bulk file of 10 GB at 30 MB/s.
pub const WHOLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Longest timeout a configuration may set: a day.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Default pause of an upstream that takes nothing of a request or brings nothing of an answer. Bulk exports pause while the
/// server reads its disk.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle upstream connections are closed after this by default: shorter than any server's own limit, so that a request rarely meets a
/// connection that the server closes in the same moment.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest such time a configuration may set: no server of the field keeps an idle connection longer.
pub const UPSTREAM_IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Idle HTTP/1 connections kept per endpoint.
pub const UPSTREAM_IDLE_MAX: usize = 64;

/// HTTP/2 connections per endpoint; each bears [`H2_STREAMS_MAX`] streams or what the endpoint allows. More exchanges than
/// they bear wait for a stream.
pub const UPSTREAM_H2_CONNECTIONS_MAX: usize = 8;

/// HTTP/2 receive windows towards an upstream, in bytes: a long answer of one stream must not wait for our word each 64 KiB.
pub const UPSTREAM_H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// See [`UPSTREAM_H2_STREAM_WINDOW_BYTES`]; caps what all streams of a connection hold.
pub const UPSTREAM_H2_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Endpoints of an upstream.
pub const ENDPOINTS_MAX: usize = 32;

/// Idle connections are not looked at more often.
pub const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// Default number of failures in a row that open an endpoint's circuit, and the largest that makes sense.
pub const HEALTH_FAILURES: u32 = 5;
/// See [`HEALTH_FAILURES`].
pub const HEALTH_FAILURES_MAX: u32 = 1000;

/// Default time that a circuit stays open before one exchange is let through: a restart takes seconds.
pub const HEALTH_OPEN: Duration = Duration::from_secs(5);

/// Default time between two questions after an endpoint's health, and for its answer.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// See [`HEALTH_INTERVAL`].
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest of the two times above that a configuration may set.
pub const HEALTH_TIME_MAX: Duration = Duration::from_secs(600);

/// Largest answer to a question after health that is read to its end, in bytes: a CapabilityStatement fits.
pub const HEALTH_BYTES_MAX: usize = 4 * 1024 * 1024;

// -- audit and administration

/// Audit records waiting for the disk. Each waits with its exchange, so [`Tunable::exchanges`] bounds them too.
pub const AUDIT_QUEUE_MAX: usize = 1024;

/// A record that is not durable after this long counts as unwritable: the caller gets an answer before it gives up.
pub const AUDIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest audit line read back when a file is continued, in bytes.
pub const AUDIT_LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Lines of the access log that wait to be written: a second of a busy proxy. More are dropped and counted.
pub const ACCESS_QUEUE_MAX: usize = 8192;

/// How long its thread rests when it has written all of them: the queue has room for what comes meanwhile.
pub const ACCESS_PAUSE: Duration = Duration::from_millis(10);

/// How long a proxy that ends waits for the last lines of its log.
pub const ACCESS_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of the admin listener: probes and one or two scrapers.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Largest configuration, certificate or key file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

const _: () = assert!(crate::limits::URL_BYTES_MAX < HEAD_BYTES_MAX && HEAD_BYTES_MAX < BUFFER_BYTES_MAX);
const _: () = assert!(BATCH_BYTES >= HOLD_BYTES, "what was held leaves as one batch");

/// How long the threads may take to drop what is still open at the end.
pub const WORKERS_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Plain bytes of one body that are rewritten before the other connections of its thread have their turn: a few milliseconds. A body that expands a
/// hundredfold, or of which little is left, would else hold them up.
pub const TURN_BYTES: usize = 1 << 20;
