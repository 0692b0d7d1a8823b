//! `cryptonym demo`: the whole program in one minute, on this machine, with nothing else installed.
//!
//! It starts a cloud and a proxy, sends made-up patients through, shows who sees what, and checks each sentence that it
//! prints. It leaves nothing behind, on success, failure or interruption. Exit 0: everything it said is true; 1: not, or it
//! could not run; 130: interrupted before the end.

pub mod client;
pub mod cloud;
pub mod patients;
pub mod seen;
pub mod stage;
pub mod start;
pub mod story;
pub mod voice;

use stage::{Stage, StageError};
use start::Starts;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use voice::Voice;

/// `cryptonym demo [--keep]`. With `keep` everything runs on until ctrl-c.
pub fn demo(keep: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return broken(&error),
    };
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut output = io::stdout();
    let starts = Starts::own();
    let code = runtime.block_on(async {
        tokio::select! {
            // In this order: an interruption is how `--keep` is meant to end.
            biased;
            ran = run(&starts, keep, &mut output, colour) => match ran {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => broken(&error),
            },
            // The other branch is dropped here, and with it processes, ports and files.
            () = interrupted() => ExitCode::from(130),
        }
    });
    // A connection that is still closing does not hold up the end.
    runtime.shutdown_background();
    code
}

/// Sets the stage and tells the story. `false`: something that was said is not true.
pub async fn run(starts: &Starts, keep: bool, output: &mut dyn Write, colour: bool) -> Result<bool, StageError> {
    let stage = Stage::set(starts).await?;
    let mut voice = Voice::new(output, colour);
    let mut all_true = true;
    if let Err(error) = story::tell(&stage, &mut voice).await {
        // A closed output cannot be told that it is closed.
        let _ = voice.claim(false, &format!("the story goes on: {error}"));
        all_true = false;
    }
    all_true &= voice.failed == 0;
    if keep {
        leave_running(&stage, &mut voice)?;
        interrupted().await;
    }
    Ok(all_true)
}

fn leave_running(stage: &Stage, voice: &mut Voice<'_>) -> io::Result<()> {
    let folder = stage.folder.display();
    let patient = patients::patient(0);
    voice.heading("It keeps running. Try, from another terminal (ctrl-c here ends it and removes everything):")?;
    voice.verbatim(&format!("\n  cd {folder}        # proxy.yaml is its configuration, audit.jsonl its audit\n"))?;
    let by_number = format!("identifier={}%7C{}", patients::MRN_SYSTEM, patient.mrn);
    for (who, what, query) in [("ward", "may know", by_number.as_str()), ("vendor", "may not know", "_count=1")] {
        let url = format!("{}/Patient?{query}", stage.base);
        voice.verbatim(&format!("  # the {who} {what}"))?;
        voice.verbatim(&format!("  curl -s --cacert ca.pem --cert {who}.pem --key {who}-key.pem '{url}'\n"))?;
    }
    voice.verbatim("  # what the cloud itself has")?;
    voice.verbatim(&format!("  curl -s --cacert ca.pem '{}/Patient?_count=1'\n", stage.cloud.base))?;
    if let Some(admin) = stage.admin() {
        voice.verbatim("  # how the proxy is")?;
        voice.verbatim(&format!("  curl -s 'http://{admin}/readyz?verbose' 'http://{admin}/metrics'"))?;
    }
    Ok(())
}

/// Resolves at ctrl-c or SIGTERM. Where neither can be watched, never: the system's own handling applies.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                Ok(()) = tokio::signal::ctrl_c() => return,
                Some(()) = terminate.recv() => return,
                else => {}
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn broken(error: &dyn std::error::Error) -> ExitCode {
    // Standard error may be closed; the exit code still speaks.
    let _ = writeln!(io::stderr(), "cryptonym demo: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use start::{RunningProxy, Starting};
    use std::path::PathBuf;
    use tokio::net::{TcpListener, TcpStream};

    /// In the proxy's place, a wire: it passes every byte to the cloud as it is.
    fn relay(config: PathBuf) -> Starting {
        Box::pin(async move {
            let text = std::fs::read_to_string(config).map_err(|error| error.to_string())?;
            let after = |mark: &str| {
                let rest = &text[text.find(mark).expect("the configuration has it") + mark.len()..];
                rest[..rest.find(['"', '\n', ' ']).expect("it ends")].to_owned()
            };
            let (listen, upstream) = (after("- address: "), after("url: \"https://"));
            let listener = TcpListener::bind(&listen).await.map_err(|error| error.to_string())?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            let running = tokio::spawn(async move {
                while let Ok((mut caller, _)) = listener.accept().await {
                    let upstream = upstream.clone();
                    tokio::spawn(async move {
                        let mut cloud = TcpStream::connect(upstream).await.expect("the cloud listens");
                        let _ = (caller.set_nodelay(true), cloud.set_nodelay(true));
                        let _ = tokio::io::copy_bidirectional(&mut caller, &mut cloud).await;
                    });
                }
            });
            Ok(RunningProxy { address, admin: address, stop: Box::new(move || running.abort()) })
        })
    }

    fn told(starts: &Starts) -> (Result<bool, StageError>, String) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut output = Vec::new();
        let result = runtime.block_on(run(starts, false, &mut output, false));
        (result, String::from_utf8(output).unwrap())
    }

    #[test]
    fn without_a_proxy_the_story_is_not_true_and_says_so() {
        let wire = Starts { keyring: || Ok("kind: Keyring\n".into()), proxy: relay };
        let (result, text) = told(&wire);
        assert!(matches!(result, Ok(false)));
        for lie in [
            "NOT TRUE  no name, number, address or id of anybody is in the bytes",
            "NOT TRUE  the birth date is another one",
            "NOT TRUE  the vendor's answer names nobody",
            "NOT TRUE  and the cloud never saw the number",
            "NOT TRUE  the cloud has other dates",
            "NOT TRUE  the audit names no patient either",
            "NOT TRUE  of 144 identifying values, none is in the",
        ] {
            assert!(text.contains(lie), "{lie}");
        }
        for truth in [
            "ok  109 of 109 records come back to the ward value for value",
            "ok  the search found this patient and no other",
            "ok  a new observation points to it by the cloud's own id",
            "ok  every date comes back as it was sent",
            "ok  the doctor, named in it by her number only, was found by the cloud",
        ] {
            assert!(text.contains(truth), "{truth}");
        }
        let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap_or_default();
        assert!(longest.chars().count() <= 100, "{longest}");
    }

    #[test]
    fn a_proxy_that_does_not_start_ends_the_demo() {
        let (result, text) =
            told(&Starts { keyring: || Ok(String::new()), proxy: |_| Box::pin(async { Err("no".into()) }) });
        assert!(matches!(result, Err(StageError::Proxy(_))));
        assert_eq!(text, "");
    }

    #[test]
    fn the_folder_goes_with_the_stage() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let starts = Starts { keyring: || Ok("kind: Keyring\n".into()), proxy: relay };
            let stage = Stage::set(&starts).await.unwrap();
            let folder = stage.folder.clone();
            assert!(folder.join("proxy.yaml").exists());
            drop(stage);
            assert!(!folder.exists());
        });
    }
}
