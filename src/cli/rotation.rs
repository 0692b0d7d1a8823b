//! `cryptonym keys`: an epoch's life, from staged to destroyed.
//!
//! Rotation has two phases, so that no replica meets a token that it cannot read: `stage` puts the new epoch into every keyring, and only when all
//! replicas have loaded it `activate` writes with it. What cannot be undone is said first and asked for. A key file is replaced whole or not
//! at all; the secrets of a destroyed epoch leave it.

use super::{CONFIG, DONE, REFUSED, USAGE, complain, keys, say, tell};
use crate::names::EpochId;
use crate::token::{Keyring, State, StepError};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Commands of `keys`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Write a new keyring of one active epoch; never overwrites
    #[command(after_help = "Example:\n  cryptonym keys generate -o keys.yaml")]
    Generate {
        /// The key file to make, readable by its owner alone
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// List the epochs of a keyring and their states; never a secret
    #[command(after_help = "Example:\n  cryptonym keys list --keys keys.yaml")]
    List {
        /// Where it is
        #[command(flatten)]
        from: Place,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Add a new epoch that is not yet written with
    #[command(after_help = "Then give the key file to every replica, and activate the epoch when all have loaded it.

Example:
  cryptonym keys stage --keys keys.yaml")]
    Stage {
        /// Where it is
        #[command(flatten)]
        from: Place,
        /// Say what would happen and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write new values under a staged epoch; the active one then reveals only
    #[command(after_help = "Example:\n  cryptonym keys activate --keys keys.yaml 2")]
    Activate(Step),
    /// Withdraw a staged epoch without ever writing under it
    #[command(after_help = "Example:\n  cryptonym keys retire --keys keys.yaml 3")]
    Retire(Step),
    /// Forget an epoch's secret: what was written under it is never revealed again
    #[command(after_help = "Example:\n  cryptonym keys destroy --keys keys.yaml 1 --dry-run")]
    Destroy(Step),
}

/// Which keyring.
#[derive(Debug, Args)]
pub struct Place {
    /// Key file
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Accept a key file that others than its owner may read (Kubernetes mounts)
    #[arg(long)]
    allow_readable_keys: bool,
}

/// A step of one epoch that cannot be taken back.
#[derive(Debug, Args)]
pub struct Step {
    #[command(flatten)]
    from: Place,
    /// The epoch, as `keys list` numbers it
    #[arg(value_name = "EPOCH")]
    epoch: u8,
    /// Say what would happen and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    epoch: u8,
    state: &'a str,
    created: &'a str,
    ids: bool,
}

/// Runs a command of `keys`.
pub fn run(command: &Keys) -> ExitCode {
    match command {
        Keys::Generate { output } => match keys::generate(output) {
            Ok(()) => {
                tell(format_args!("wrote {}; keep a copy where only its owners can read it", output.display()));
                ExitCode::from(DONE)
            }
            Err(error) => failed(&error),
        },
        Keys::List { from, json } => match load(from) {
            Ok(keyring) => list(&keyring, *json),
            Err(mistakes) => say::mistakes(&mistakes, CONFIG),
        },
        Keys::Stage { from, dry_run } => stage(from, *dry_run),
        Keys::Activate(step) => take(step, activate),
        Keys::Retire(step) => take(step, retire),
        Keys::Destroy(step) => take(step, destroy),
    }
}

fn load(from: &Place) -> Result<Keyring, Vec<String>> {
    keys::load(&from.keys.to_string_lossy(), from.allow_readable_keys)
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    complain(format_args!("cryptonym: {error}"));
    ExitCode::from(REFUSED)
}

fn list(keyring: &Keyring, json: bool) -> ExitCode {
    for (id, state) in keyring.epochs() {
        let ids = id == keyring.default_id_epoch();
        let created = keyring.created(id).unwrap_or_default();
        if json {
            say::json(&Listed { epoch: id.get(), state: state.as_str(), created, ids });
        } else {
            let ids = if ids { "  ids are pinned to it unless --id-epoch says otherwise" } else { "" };
            tell(format_args!("{:>2}  {:<11}  {created}{ids}", id.get(), state.as_str()));
        }
    }
    ExitCode::from(DONE)
}

fn stage(from: &Place, dry_run: bool) -> ExitCode {
    edit(from, dry_run, |keyring| {
        let (secret, created) = keys::fresh().map_err(|error| error.to_string())?;
        let id = keyring.stage(*secret, &created).map_err(|error| error.to_string())?;
        Ok((format!("epoch {id} is staged: it reveals, and nothing is written under it yet"), id))
    })
    .map_or_else(
        |code| code,
        |id| {
            if !dry_run {
                tell(format_args!(
                    "give the key file to every replica; when all have loaded it: cryptonym keys activate {id}"
                ));
            }
            ExitCode::from(DONE)
        },
    )
}

/// What a step does to the keyring, and what is said of it: before, and after.
type Taken = Result<(Vec<String>, String), StepError>;

fn activate(keyring: &mut Keyring, id: EpochId) -> Taken {
    let before = keyring.activate(id)?;
    let warnings = vec![
        format!(
            "new values will be written under epoch {id}; epoch {before} will reveal only, and never be active again"
        ),
        format!("a replica that has not loaded epoch {id} cannot reveal them: stage it everywhere first"),
        format!("ids stay pinned to epoch {}", keyring.default_id_epoch()),
    ];
    Ok((warnings, format!("epoch {id} is active, epoch {before} reveals only; `cryptonym rewrap` moves old tokens")))
}

fn retire(keyring: &mut Keyring, id: EpochId) -> Taken {
    keyring.retire(id)?;
    Ok((vec![format!("epoch {id} will reveal only, and never be active")], format!("epoch {id} reveals only")))
}

fn destroy(keyring: &mut Keyring, id: EpochId) -> Taken {
    let was_staged = keyring.state(id) == Some(State::Staged);
    let pinned = keyring.default_id_epoch() == id;
    keyring.destroy(id)?;
    let mut warnings = vec![format!(
        "the secret of epoch {id} will be gone from this file, and no copy of this program can bring it back"
    )];
    if was_staged {
        warnings.push(format!("nothing should have been written under epoch {id} yet; what was, is lost"));
    } else {
        warnings.push(format!(
            "unreadable for ever, in every domain: each token written under epoch {id} that `cryptonym rewrap` has not moved"
        ));
    }
    if pinned {
        warnings.push(format!(
            "ids are pinned to epoch {id} in every domain that names no other: the ids, urn:uuid pseudonyms and escapes in every store, and \
             the offsets of dates, cannot be resolved any more; new ones would be made under epoch {}, and stored records not be found",
            keyring.default_id_epoch()
        ));
    }
    warnings
        .push("copies of this key file, backups and snapshots hold the secret until they are destroyed too".to_owned());
    Ok((warnings, format!("epoch {id} is destroyed")))
}

fn take(step: &Step, what: fn(&mut Keyring, EpochId) -> Taken) -> ExitCode {
    let Ok(id) = EpochId::new(step.epoch) else {
        return say::usage("an epoch id is a number from 1 to 63");
    };
    let done = edit(&step.from, step.dry_run, |keyring| {
        let (warnings, done) = what(keyring, id).map_err(|error| error.to_string())?;
        for warning in warnings {
            complain(format_args!("warning: {warning}"));
        }
        if !step.dry_run && !step.yes && !confirmed() {
            return Err(String::new());
        }
        Ok((done, id))
    });
    done.map_or_else(|code| code, |_| ExitCode::from(DONE))
}

/// Asks on the terminal. Where there is none the answer is no.
fn confirmed() -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    complain(format_args!("This cannot be undone. Type `yes` to go on:"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

/// Changes a key file under a lock. An empty problem: it was not confirmed.
fn edit(
    from: &Place,
    dry_run: bool,
    change: impl FnOnce(&mut Keyring) -> Result<(String, EpochId), String>,
) -> Result<EpochId, ExitCode> {
    let path: &Path = &from.keys;
    if from.keys.to_string_lossy().starts_with("env:") {
        return Err(say::usage("a keyring in the environment cannot be changed; help: name its file"));
    }
    let locked = File::open(path).map(|file| file.try_lock().map(|()| file));
    let _lock = match locked {
        Ok(Ok(file)) => file,
        Ok(Err(_)) => return Err(failed(&std::io::Error::other("another process is changing this key file"))),
        Err(error) => {
            return Err(say::mistakes(&[format!("{}: this key file cannot be read: {error}", path.display())], CONFIG));
        }
    };
    let mut keyring = load(from).map_err(|mistakes| say::mistakes(&mistakes, CONFIG))?;
    let (done, id) = change(&mut keyring).map_err(|problem| {
        if problem.is_empty() {
            complain(format_args!("cryptonym: nothing was changed; help: this cannot be undone, so it needs --yes or a `yes` on a terminal"));
            return ExitCode::from(USAGE);
        }
        complain(format_args!("cryptonym: {problem}"));
        ExitCode::from(REFUSED)
    })?;
    if dry_run {
        tell(format_args!("dry run, nothing was changed. Would be: {done}"));
        return Ok(id);
    }
    match keys::replace(path, keyring.to_yaml().as_bytes()) {
        Ok(()) => {
            tell(format_args!("{done}"));
            Ok(id)
        }
        Err(error) => {
            complain(format_args!("cryptonym: {} could not be replaced: {error}", path.display()));
            Err(ExitCode::from(REFUSED))
        }
    }
}
