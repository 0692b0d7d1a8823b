//! Memory stays bounded however much goes through: `VmHWM` of the command while a slow reader holds it up.
//!
//! By default 16 MiB of NDJSON; `CRYPTONYM_MEMORY_MIB=1024` with `CRYPTONYM_BIN` naming a release build is the measurement that the
//! documentation cites. Records are those of Synthea, over and over, where the record sets are there; else they are made up.
#![cfg(target_os = "linux")]

mod cli_support;

use cli_support::{Desk, binary};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a run may hold at most, in KiB.
const PEAK_KIB_MAX: u64 = 64 * 1024;

#[test]
#[allow(clippy::print_stdout)]
fn a_slow_reader_holds_up_the_run_and_not_the_memory() {
    let desk = Desk::new("memory");
    let mib: usize = std::env::var("CRYPTONYM_MEMORY_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(16);
    let block = records();
    let repeats = (mib << 20) / block.len() + 1;
    for coding in ["ndjson", "ndjson.gz", "ndjson.zst"] {
        for threads in [1, 0] {
            let (peak, read) = measure(&desk, coding, threads, &block, repeats);
            let cores = if threads == 0 { "all cores".to_owned() } else { format!("{threads} thread") };
            println!(
                "{coding}, {cores}: {} MiB in, {} MiB out, VmHWM {peak} KiB",
                (block.len() * repeats) >> 20,
                read >> 20
            );
            assert!(peak < PEAK_KIB_MAX, "{coding}, {cores}: VmHWM {peak} KiB");
            assert!(read > block.len() as u64 * repeats as u64 / 2, "{read}");
        }
    }
}

/// A megabyte or more of lines.
fn records() -> Vec<u8> {
    let shared = std::env::var_os("CRYPTONYM_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
    let mut block = Vec::new();
    let folder = shared.join("data/synthea-bulk-10");
    let mut files: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let bytes = std::fs::read(&file).unwrap_or_default();
        if name.ends_with(".ndjson.gz") {
            let mut decoder = flate2::read::MultiGzDecoder::new(&bytes[..]);
            decoder.read_to_end(&mut block).expect("gzip");
        } else if name.ends_with(".ndjson") {
            block.extend(bytes);
        }
        if block.len() > 8 << 20 {
            break;
        }
    }
    block.truncate(block.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1));
    for n in 0..if block.is_empty() { 8000 } else { 0 } {
        block.extend(
            format!("{{\"resourceType\":\"Patient\",\"id\":\"p{n}\",\"name\":[{{\"family\":\"Name{n}\"}}],\"birthDate\":\"1980-01-02\"}}\n")
                .bytes(),
        );
    }
    block
}

/// Peak memory in KiB, and bytes read from the command. The input of a coded run is a file, so that its suffix tells; a plain one
/// comes from a pipe.
fn measure(desk: &Desk, coding: &str, threads: usize, block: &[u8], repeats: usize) -> (u64, u64) {
    let mut command = Command::new(binary());
    command.current_dir(&desk.0).args(["pseudonymize", "--rules", "fhir-r4-pseudonymized", "--keys", "k.yaml"]);
    if threads > 0 {
        command.args(["--threads", &threads.to_string()]);
    }
    let piped = coding == "ndjson";
    if piped {
        command.args(["--format", "ndjson"]);
    } else {
        let name = format!("in.{coding}");
        if !desk.has(&name) {
            // One member for all, in parts: what a file of many members would say is said by tests/files.rs.
            let file = std::fs::File::create(desk.at(&name)).unwrap();
            pack(file, coding, block, repeats);
        }
        command.arg(name);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (mut peak, mut read) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..if piped { repeats } else { 0 } {
                if stdin.write_all(block).is_err() {
                    return;
                }
            }
        });
        let mut buffer = vec![0; 1 << 20];
        let mut next = 0;
        loop {
            if read >= next {
                // The reader falls asleep; everything before it fills up.
                std::thread::sleep(Duration::from_millis(if next == 0 { 1500 } else { 40 }));
                next = read + (8 << 20);
                peak = peak.max(high_water(&status));
            }
            match stdout.read(&mut buffer).unwrap() {
                0 => break,
                n => read += n as u64,
            }
        }
    });
    child.wait().unwrap();
    (peak, read)
}

fn pack(file: std::fs::File, coding: &str, block: &[u8], repeats: usize) {
    if coding.ends_with("gz") {
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        for _ in 0..repeats {
            encoder.write_all(block).unwrap();
        }
        encoder.finish().unwrap();
        return;
    }
    // A frame for each block: as exports are appended, and so that what repeats is not seen to repeat.
    let mut file = file;
    let frame = zstd::stream::encode_all(block, 3).unwrap();
    for _ in 0..repeats {
        file.write_all(&frame).unwrap();
    }
}

/// The most memory that a process has held, in KiB.
fn high_water(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}
