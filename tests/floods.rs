//! Peers that are slow on purpose, or too many frames at once: memory stays bounded and everybody else is served.
//!
//! Proxy, attackers and upstream share this process, so that growth is counted generously: everything that an attack makes anybody
//! hold is in it. Adding a flood costs a line.
#![cfg(all(feature = "proxy", target_os = "linux"))]

#[path = "proxy_support/mod.rs"]
mod support;

use cryptonym::encoding::stream::{Encoder, Packing};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::frames::*;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How much memory any flood may cost.
const GROWTH_KB_MAX: u64 = 64 * 1024;

/// An attack: connections, each of which is sent something first and something else again and again.
struct Flood {
    name: &'static str,
    http: Http,
    connections: usize,
    first: Vec<u8>,
    /// The `n`th bytes after that.
    again: Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>,
    /// Between them.
    pause: Duration,
    /// Whether it takes what it is sent.
    reads: bool,
}

fn flood(name: &'static str, first: Vec<u8>, again: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Flood {
    let pause = Duration::from_millis(2);
    Flood { name, http: Http::Two, connections: 2, first, again: Box::new(again), pause, reads: true }
}

/// A large answer that nobody takes, or a small one.
const LARGE: &str = "/fhir/Patient?_count=1000";

/// An upstream that sends lines without end where a thousand are asked for, and holds nothing itself.
async fn upstream(socket: TcpListener) {
    async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
        let lines = Arc::new(format!("{PATIENT}\n").repeat(400));
        let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
        let mut kept = Vec::new();
        loop {
            let Some(end) = kept.windows(4).position(|four| four == b"\r\n\r\n") else {
                if stream.read_buf(&mut kept).await? == 0 {
                    return Ok(());
                }
                continue;
            };
            if kept.starts_with(b"POST") {
                while stream.read_buf(&mut kept).await? > 0 {
                    kept.clear(); // what an attacker gets so far is taken in, and never answered
                }
                return Ok(());
            }
            let large = kept[..end].windows(11).any(|word| word == b"_count=1000");
            kept.drain(..end + 4);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/fhir+";
            if large {
                stream.write_all(format!("{head}ndjson\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes()).await?;
                loop {
                    stream.write_all(chunk.as_bytes()).await?;
                }
            }
            stream
                .write_all(format!("{head}json\r\ncontent-length: {}\r\n\r\n{PATIENT}", PATIENT.len()).as_bytes())
                .await?;
        }
    }
    while let Ok((stream, _)) = socket.accept().await {
        tokio::spawn(serve(stream));
    }
}

async fn attack(world: Arc<World>, flood: Arc<Flood>) {
    loop {
        let Ok(mut stream) = world.try_connect(None, flood.http).await else { continue };
        if stream.write_all(&flood.first).await.is_err() {
            continue;
        }
        let (mut from, mut to) = tokio::io::split(stream);
        let sink = async {
            let mut buffer = vec![0; 16 * 1024];
            while flood.reads && from.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
            if !flood.reads {
                std::future::pending::<()>().await;
            }
        };
        let source = async {
            for n in 0.. {
                let bytes = (flood.again)(n);
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    return;
                }
                tokio::time::sleep(flood.pause).await;
            }
        };
        tokio::select! { () = sink => {} () = source => {} }
        tokio::time::sleep(flood.pause).await;
    }
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A hundred honest exchanges on both versions; how long the slowest took.
async fn hundred(world: &World, name: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for n in 0..100 {
        let http = BOTH[n % 2];
        let started = Instant::now();
        let asked = world.send(http, Some("ward"), get(http, "/fhir/Patient/real-1"));
        let got = tokio::time::timeout(Duration::from_secs(20), asked).await;
        let got = got.unwrap_or_else(|_| panic!("{name}: the {n}th honest request hangs"));
        assert!(
            got.status == 200 && got.complete,
            "{name}: the {n}th honest request got {} {}",
            got.status,
            got.text()
        );
        slowest = slowest.max(started.elapsed());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_cost_little_and_stop_nobody() {
    let pki = Pki::new();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut way = Upstream::start(&pki, false).await;
    way.address = socket.local_addr().unwrap();
    tokio::spawn(upstream(socket));
    let world = Arc::new(World::around(Setting::default(), pki, way).await);

    let ids = |n: u32| move |i: u32| 1 + 2 * (n * 100 + i);
    let post = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/fhir/Patient")];
    let post = block(&[&post[..], &[("content-type", JSON)]].concat());
    let large = block(&[(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", LARGE)]);
    let shut = preface(&[0, 4, 0, 0, 0, 0]);
    let asking = |first: Vec<u8>| {
        [first, (0..100).flat_map(|i| frame(HEADERS, END_STREAM | END_HEADERS, 1 + 2 * i, &large)).collect()].concat()
    };
    let unfinished = [preface(&[]), frame(HEADERS, END_STREAM, 1, &block(&read(&[])))].concat();
    let uploading = [preface(&[]), frame(HEADERS, END_HEADERS, 1, &post)].concat();
    // One field of 4,000 bytes put into the table, then named again and again.
    let bomb = {
        let mut block = block(&read(&[]));
        block.extend([0x40, 1, b'x', 127, 0xa1, 30]);
        block.extend(vec![b'y'; 4000]);
        block.extend(vec![0xbe; 10_000]);
        block
    };
    let bomb = move |n| {
        [(0..4).map(ids(n)).flat_map(|id| frame(HEADERS, END_STREAM | END_HEADERS, id, &bomb)).collect::<Vec<u8>>()]
            .concat()
    };
    let zip = Encoder::new(Packing::Zstd).unwrap().finish(&vec![b'\n'; 32 << 20]).unwrap();
    let zipped = format!(
        "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: {NDJSON}\r\ncontent-encoding: zstd\r\ncontent-length: {}\r\n\r\n",
        zip.len()
    );
    let zipped = [zipped.as_bytes(), &zip].concat();
    let slow = |name, first: &str, again: &'static [u8], reads| Flood {
        http: Http::One,
        connections: 60,
        pause: Duration::from_millis(50),
        reads,
        ..flood(name, first.as_bytes().to_vec(), move |_| again.to_vec())
    };
    let few = |flood: Flood, connections| Flood { connections, ..flood };
    let upload = format!(
        "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\ncontent-length: 1000000\r\n\r\n{{"
    );
    let large_one = format!("GET {LARGE} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let reset = post.clone();
    let floods = vec![
        flood("rapid reset", preface(&[]), move |n| {
            (0..100)
                .map(ids(n))
                .flat_map(|id| {
                    [frame(HEADERS, END_HEADERS, id, &reset), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
                })
                .collect()
        }),
        flood("resets that we are made to send", preface(&[]), move |n| {
            (0..100)
                .map(ids(n))
                .flat_map(|id| [ask(id, &read(&[])), frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat())
                .collect()
        }),
        flood("continuation without end", unfinished.clone(), |_| {
            frame(CONTINUATION, 0, 1, &block(&[("x", "y"); 100]))
        }),
        flood("empty continuation without end", unfinished, |_| frame(CONTINUATION, 0, 1, b"").repeat(1000)),
        flood("settings", preface(&[]), |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(500)),
        flood("pings", preface(&[]), |_| frame(PING, 0, 0, &[7; 8]).repeat(500)),
        Flood {
            reads: false,
            ..flood("pings whose answers nobody takes", preface(&[]), |_| frame(PING, 0, 0, &[7; 8]).repeat(500))
        },
        Flood {
            reads: false,
            ..flood("settings whose answers nobody takes", preface(&[]), |_| {
                frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(500)
            })
        },
        flood("priorities", preface(&[]), move |n| {
            (0..500).map(ids(n)).flat_map(|id| frame(PRIORITY, 0, id, &[0, 0, 0, 0, 1])).collect()
        }),
        flood("data without a byte", uploading.clone(), |_| frame(DATA, 0, 1, b"").repeat(1000)),
        flood("data byte by byte", uploading.clone(), |_| frame(DATA, 0, 1, b" ").repeat(500)),
        flood("data of padding", uploading, |_| frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat()).repeat(20)),
        flood("windows widened by a byte", preface(&[]), |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(500)),
        flood("frames of no known kind", preface(&[]), |_| frame(0xfe, 0, 0, &[1; 100]).repeat(200)),
        flood("a header named again and again", preface(&[]), bomb),
        flood("requests refused as fast as they come", preface(&[]), move |n| {
            (0..50).map(ids(n)).flat_map(|id| ask(id, &read(&[("x-provenance", "{}")]))).collect()
        }),
        few(flood("shut windows", asking(shut.clone()), |_| vec![]), 1),
        few(
            flood("windows opened by a byte", asking(shut), move |n| {
                frame(WINDOW_UPDATE, 0, 1 + 2 * (n % 100), &[0, 0, 0, 1])
            }),
            1,
        ),
        Flood { reads: false, ..few(flood("answers that nobody takes", asking(preface(&[])), |_| vec![]), 1) },
        slow("slow heads", "GET /fhir/Patient/1 HTTP/1.1\r\nhost: localhost\r\n", b"x: y\r\n", true),
        slow("slow bodies", &upload, b" ", true),
        slow("slow readers", &large_one, b"", false),
        slow("nothing at all", "", b"", true),
        Flood {
            http: Http::One,
            connections: 4,
            pause: Duration::from_millis(50),
            ..flood("zip bombs", zipped.clone(), move |_| zipped.clone())
        },
    ];
    assert!(floods.len() >= 20);
    hundred(&world, "nothing").await; // what is grown once is grown
    let before = resident();
    for flood in floods {
        let name = flood.name;
        let flood = Arc::new(flood);
        let attackers: Vec<_> =
            (0..flood.connections).map(|_| tokio::spawn(attack(world.clone(), flood.clone()))).collect();
        let mut most = before;
        let watch = async {
            loop {
                most = most.max(resident());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let slowest = tokio::select! { slowest = hundred(&world, name) => slowest, () = watch => unreachable!("it only watches") };
        attackers.iter().for_each(|attacker| attacker.abort());
        let growth = most.saturating_sub(before);
        let _ = writeln!(std::io::stderr(), "{name}: {growth} KiB more, slowest honest answer {slowest:?}");
        assert!(growth < GROWTH_KB_MAX, "{name}: {growth} KiB");
    }
}
