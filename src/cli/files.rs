//! Files through the rewriter: what is done with each input, on all cores, and what is said of it.
//!
//! Documents go side by side, one to a core; the lines of one NDJSON input are spread over all cores. What is said comes in the
//! order of the inputs.

use super::convert::Common;
use super::plan::{Plan, Task, plan};
use super::say::{self, LogFormat, Progress};
use super::{DONE, REFUSED, complain};
use crate::batch::{self, BatchError, Job, Ledger, Outcome, Output};
use crate::encoding;
use crate::rewrite::{Format, Refusal};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::Mutex;

/// Totals of a run.
#[derive(Default)]
struct Totals {
    done: u64,
    refused: u64,
    stayed: u64,
    unsealed: u64,
    failed: bool,
}

impl Totals {
    fn add(&mut self, name: &str, result: Result<Outcome, BatchError>, log: LogFormat) {
        match result {
            Ok(Outcome { done, refused, report, .. }) => {
                self.done += done;
                self.refused += refused;
                self.stayed += report.stayed;
                self.unsealed += report.unsealed;
            }
            Err(error) => {
                log.problem(name, &error.to_string());
                self.failed = true;
            }
        }
    }
}

/// Converts all inputs. `strict`: tokens that stay are a failure.
pub fn convert(common: &Common, job: &Job, ledger: Option<Ledger>, strict: bool) -> ExitCode {
    let log = common.log_format;
    let ledger = ledger.map(Mutex::new);
    let ledger = ledger.as_ref();
    let mut totals = Totals::default();
    if common.inputs.is_empty() {
        let output = match &common.output {
            None => Ok(Output::stdout()),
            Some(path) => Output::file(path),
        };
        let mut input = BufReader::with_capacity(batch::CHUNK_BYTES, std::io::stdin().lock());
        let format = common.format().unwrap_or(Format::Json);
        let mut refused = |line, refusal: &Refusal| log.refusal("-", line, refusal);
        let result = rewrite(&mut input, format, output, job, ledger, &mut refused);
        totals.add("-", result, log);
        return end(&totals, strict, log);
    }
    let Plan { tasks, refused } = match plan(common, job, log) {
        Ok(plan) => plan,
        Err(mistake) => return say::usage(&mistake),
    };
    totals.refused = refused;
    let size = |task: &Task| task.input.metadata().map_or(0, |metadata| metadata.len());
    let progress = Progress::start(tasks.iter().map(size).sum());
    let (lines, documents): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(|t| t.format == Format::Ndjson);
    let over = |totals: &Totals| common.fail_fast() && (totals.refused > 0 || totals.failed);

    let mut queue = documents.iter();
    let sums = &mut totals;
    if !over(sums) {
        batch::ordered(
            job.workers.min(documents.len().max(1)),
            || queue.next(),
            || (),
            |(), task| {
                let mut refusals = Vec::new();
                let mut refused = |_, refusal: &Refusal| refusals.push(refusal.clone());
                let result = one(task, &progress, job, ledger, &mut refused);
                (task, refusals, result)
            },
            |(task, refusals, result)| {
                let name = task.input.display().to_string();
                for refusal in &refusals {
                    log.refusal(&name, 0, refusal);
                }
                sums.add(&name, result, log);
                !over(sums)
            },
        );
    }
    for task in &lines {
        if over(&totals) {
            break;
        }
        let name = task.input.display().to_string();
        let mut refused = |line, refusal: &Refusal| log.refusal(&name, line, refusal);
        let result = one(task, &progress, job, ledger, &mut refused);
        totals.add(&name, result, log);
    }
    progress.end();
    end(&totals, strict, log)
}

fn one(
    task: &Task,
    progress: &Progress,
    job: &Job,
    ledger: Option<&Mutex<Ledger>>,
    refused: batch::Refused<'_>,
) -> Result<Outcome, BatchError> {
    let file = File::open(&task.input).map_err(BatchError::Read)?;
    let file = BufReader::with_capacity(batch::CHUNK_BYTES, progress.read(file));
    let mut input = encoding::reader(file, task.coding).map_err(BatchError::Read)?;
    let output = match &task.output {
        None => Ok(Output::stdout()),
        Some(path) => path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| Output::file(path)),
    };
    rewrite(&mut *input, task.format, output, job, ledger, refused)
}

fn rewrite(
    input: &mut dyn BufRead,
    format: Format,
    output: std::io::Result<Output>,
    job: &Job,
    ledger: Option<&Mutex<Ledger>>,
    refused: batch::Refused<'_>,
) -> Result<Outcome, BatchError> {
    let mut output = output.map_err(BatchError::Write)?;
    let outcome = job.run(input, format, &mut output, ledger, refused)?;
    // A refused document leaves no file; refused lines are left out of theirs.
    if outcome.complete {
        output.commit().map_err(BatchError::Write)?;
    }
    Ok(outcome)
}

fn end(totals: &Totals, strict: bool, log: LogFormat) -> ExitCode {
    if log == LogFormat::Text && totals.unsealed > 0 {
        complain(format_args!("{} resources keep shifted dates: they bear no valid seal", totals.unsealed));
    }
    if log == LogFormat::Text && totals.stayed > 0 {
        complain(format_args!("{} tokens stayed: unknown, of another domain, or of a destroyed epoch", totals.stayed));
    }
    log.ended(totals.done, totals.refused, totals.stayed, totals.unsealed);
    let failed = totals.failed || totals.refused > 0 || strict && totals.stayed > 0;
    ExitCode::from(if failed { REFUSED } else { DONE })
}
