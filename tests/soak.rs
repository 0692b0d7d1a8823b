//! Many exchanges, each compared by content, while everything around them changes: settings are reloaded (other keys, other
//! rules, certificates read anew), one replica after the other is drained, the upstream closes its connections. None may fail, none
//! may see another's answer, and nothing that identifies anybody may reach the upstream.
//!
//! `CRYPTONYM_SOAK=100000` for the record; a few hundred otherwise.
#![allow(clippy::print_stdout)] // its figures are for people
#![cfg(feature = "proxy")]

#[path = "proxy_support/mod.rs"]
mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::*;

/// In every value that identifies somebody.
const SECRET: &str = "Kanarienvogel";

/// An upstream that gives back what it got, and closes a connection with every 97th answer.
struct Echo {
    address: SocketAddr,
    leaks: Arc<AtomicU64>,
}

async fn echo() -> Echo {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (leaks, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let seen = leaks.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let (leaks, answers) = (seen.clone(), answers.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (leaks, answers) = (leaks.clone(), answers.clone());
                    async move {
                        let head = format!("{:?}", request.headers());
                        let uri = request.uri().to_string();
                        let body = request.into_body().collect().await?.to_bytes();
                        let text = String::from_utf8_lossy(&body).into_owned();
                        let open = [head, uri, text].iter().any(|part| part.contains(SECRET));
                        leaks.fetch_add(u64::from(open), Ordering::Relaxed);
                        let mut answer = http::Response::new(Full::new(body));
                        answer.headers_mut().insert("content-type", http::HeaderValue::from_static(JSON));
                        if answers.fetch_add(1, Ordering::Relaxed) % 97 == 96 {
                            answer.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
                        }
                        Ok::<_, hyper::Error>(answer)
                    }
                });
                let io = TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    Echo { address, leaks }
}

async fn replica(text: &str, folder: &std::path::Path) -> cryptonym::proxy::Running {
    let settings = parse(text, folder).unwrap();
    cryptonym::proxy::serve(settings, std::future::pending()).await.unwrap()
}

enum Sender {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// A client's connection to whichever replica answers.
async fn connected(pki: &Pki, replicas: &Mutex<Vec<SocketAddr>>, http: Http, who: Option<&str>, turn: u64) -> Sender {
    for attempt in turn.. {
        let address = {
            let replicas = replicas.lock().unwrap();
            replicas[attempt as usize % replicas.len()]
        };
        let Ok(stream) = tokio::net::TcpStream::connect(address).await else { continue };
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let Ok(stream) = tokio_rustls::TlsConnector::from(pki.client_config(who, http)).connect(name, stream).await
        else {
            continue;
        };
        let io = TokioIo::new(stream);
        match http {
            Http::One => {
                let Ok((sender, connection)) = hyper::client::conn::http1::handshake(io).await else { continue };
                tokio::spawn(connection);
                return Sender::One(sender);
            }
            Http::Two => {
                let Ok((sender, connection)) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await
                else {
                    continue;
                };
                tokio::spawn(connection);
                return Sender::Two(sender);
            }
        }
    }
    unreachable!("attempts do not end")
}

/// The answer, or the request if nothing of it was sent.
async fn sent(
    sender: &mut Sender,
    request: http::Request<Full<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, Option<http::Request<Full<Bytes>>>> {
    let done = match sender {
        Sender::One(sender) => match sender.ready().await {
            Ok(()) => sender.try_send_request(request).await,
            Err(_) => return Err(Some(request)),
        },
        Sender::Two(sender) => match sender.ready().await {
            Ok(()) => sender.try_send_request(request).await,
            Err(_) => return Err(Some(request)),
        },
    };
    done.map_err(|mut error| error.take_message())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_do_not_feel_what_changes_around_them() {
    let count: u64 = std::env::var("CRYPTONYM_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    log::keep();
    let (pki, upstream) = (Arc::new(Pki::new()), echo().await);
    let limits = "limits: {drain_delay: 100ms, drain_timeout: 20s}\n";
    let text = configuration(&Setting { file: limits, ..Setting::default() }, upstream.address);
    let second = text.replace("audit.jsonl", "second.jsonl");
    let other = second.replace("    rules: reversible\n", "    rules: reversible\n    domain: other\n"); // other keys
    assert_ne!(other, second);
    let replicas = Arc::new(Mutex::new(Vec::new()));
    let (next, failed, done) =
        (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));

    let mut one = replica(&text, &pki.folder).await;
    let two = replica(&second, &pki.folder).await;
    *replicas.lock().unwrap() = vec![one.addresses[0], two.addresses[0]];

    let mut clients = tokio::task::JoinSet::new();
    for worker in 0..8u64 {
        let (pki, replicas, next, failed) = (pki.clone(), replicas.clone(), next.clone(), failed.clone());
        clients.spawn(async move {
            let http = if worker % 2 == 0 { Http::One } else { Http::Two };
            let who = if worker % 4 < 3 { Some("ward") } else { None };
            let mut sender = connected(&pki, &replicas, http, who, worker).await;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let body = format!(
                    r#"{{"resourceType":"Patient","id":"{SECRET}-{number}","name":[{{"family":"{SECRET}{number}"}}],"birthDate":"1970-01-02"}}"#
                );
                let mut request = post(http, "/fhir/Patient", JSON, body.clone());
                let mut tries = 0;
                let answer = loop {
                    match sent(&mut sender, request).await {
                        Ok(answer) => break Some(answer),
                        Err(Some(unsent)) if tries < 20 => {
                            (request, tries) = (unsent, tries + 1);
                            sender = connected(&pki, &replicas, http, who, number + tries).await;
                        }
                        Err(_) => break None,
                    }
                };
                let fault = match answer {
                    None => Some("no answer".to_owned()),
                    Some(answer) => {
                        let status = answer.status();
                        match answer.into_body().collect().await {
                            Err(_) => Some("a broken answer".to_owned()),
                            Ok(got) => {
                                let got = String::from_utf8_lossy(&got.to_bytes()).into_owned();
                                let right = if who.is_some() { got == body } else { !got.contains(SECRET) };
                                (status != 200 || !right || !got.contains("Patient")).then(|| format!("{status}: {got}"))
                            }
                        }
                    }
                };
                if let Some(fault) = fault {
                    failed.lock().unwrap().push(format!("{number} {who:?} worker {worker}: {fault}"));
                    sender = connected(&pki, &replicas, http, who, number).await;
                }
            }
        });
    }

    let (mut reloads, mut drains) = (0, 0);
    let started = Instant::now();
    let changes = async {
        while !done.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let settings = if reloads % 2 == 0 { &other } else { &second };
            two.reload().take(parse(settings, &pki.folder).unwrap()).unwrap();
            reloads += 1;
            if reloads % 4 == 3 {
                // The first replica leaves the list, drains, and another takes its place.
                let left = one.addresses[0];
                replicas.lock().unwrap().retain(|address| *address != left);
                one.drain();
                one.ended().await;
                one = replica(&text, &pki.folder).await;
                replicas.lock().unwrap().push(one.addresses[0]);
                drains += 1;
            }
        }
    };
    let work = async {
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(work, changes);
    let failed = failed.lock().unwrap();
    println!(
        "{count} exchanges in {:?}, {reloads} reloads, {drains} drains: {} failed, {} leaks",
        started.elapsed(),
        failed.len(),
        upstream.leaks.load(Ordering::Relaxed)
    );
    assert!(failed.is_empty(), "{:#?}", &failed[..failed.len().min(10)]);
    assert_eq!(upstream.leaks.load(Ordering::Relaxed), 0);
    assert!(reloads > 0);
}
