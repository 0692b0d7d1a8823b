//! The product as its users have it: the command line, files in, files out. No function of the library is called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The two packs that R4 ships with.
pub const PACKS: [&str; 2] = [PSEUDONYMIZED, REVERSIBLE];
/// One way: for analysts.
pub const PSEUDONYMIZED: &str = "fhir-r4-pseudonymized";
/// Both ways: nothing is lost.
pub const REVERSIBLE: &str = "fhir-r4-reversible";

/// What one run of the command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The output file, where there is one.
    pub file: Option<Vec<u8>>,
}

impl Outcome {
    /// Everything that anybody can see of the run.
    pub fn visible(&self) -> Vec<u8> {
        let mut all = self.stdout.clone();
        all.extend(&self.stderr);
        all.extend(self.file.iter().flatten());
        all
    }

    /// The output file as text; says on which run it is missing.
    #[track_caller]
    pub fn text(&self) -> String {
        let file = self
            .file
            .as_ref()
            .unwrap_or_else(|| panic!("exit {:?}, no output: {}", self.code, String::from_utf8_lossy(&self.stderr)));
        String::from_utf8(file.clone()).expect("output is UTF-8")
    }

    /// The codes of the refusals on stderr, in order.
    pub fn refusals(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.stderr).into_owned();
        text.match_indices("refused[")
            .filter_map(|(at, head)| text[at + head.len()..].split(']').next().map(str::to_owned))
            .collect()
    }
}

/// A folder of this test run, with a keyring in it.
pub struct Product {
    folder: PathBuf,
    keys: PathBuf,
    next: AtomicU64,
}

impl Product {
    /// The command with fresh keys; made once for each test file.
    pub fn get() -> &'static Product {
        static PRODUCT: OnceLock<Product> = OnceLock::new();
        PRODUCT.get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(stem());
            std::fs::remove_dir_all(&folder).ok();
            std::fs::create_dir_all(&folder).expect("a folder for the test's files");
            let keys = folder.join("test.keyring");
            let made =
                Command::new(binary()).args(["keys", "generate", "-o"]).arg(&keys).output().expect("the command runs");
            assert!(
                made.status.success() && keys.is_file(),
                "keys generate: {}",
                String::from_utf8_lossy(&made.stderr)
            );
            Product { folder, keys, next: AtomicU64::new(0) }
        })
    }

    /// `pseudonymize` of one input. `suffix` is `json` or `ndjson`.
    pub fn pseudonymize(&self, pack: &str, suffix: &str, input: &[u8]) -> Outcome {
        self.run("pseudonymize", &["--rules", pack], suffix, input)
    }

    /// `reidentify` of one input.
    pub fn reidentify(&self, pack: &str, suffix: &str, input: &[u8]) -> Outcome {
        self.run("reidentify", &["--rules", pack, "--purpose", "TREAT", "--caller", "oracle"], suffix, input)
    }

    /// `pseudonymize` of many inputs in one run: as many outcomes, in order. Standard output is everybody's.
    pub fn pseudonymize_all(&self, pack: &str, inputs: &[&[u8]]) -> Vec<Outcome> {
        self.run_all("pseudonymize", &["--rules", pack], "json", inputs)
    }

    /// `reidentify` of many inputs in one run.
    pub fn reidentify_all(&self, pack: &str, inputs: &[&[u8]]) -> Vec<Outcome> {
        self.run_all("reidentify", &["--rules", pack, "--purpose", "TREAT", "--caller", "oracle"], "json", inputs)
    }

    fn run(&self, command: &str, arguments: &[&str], suffix: &str, input: &[u8]) -> Outcome {
        let folder = self.fresh();
        let (from, to) = (folder.join(format!("in.{suffix}")), folder.join(format!("out.{suffix}")));
        std::fs::write(&from, input).expect("the input is written");
        let output = self.command(command, arguments).arg("-o").arg(&to).arg(&from).output().expect("the command runs");
        let file = std::fs::read(&to).ok();
        std::fs::remove_dir_all(folder).ok();
        Outcome { code: output.status.code(), stdout: output.stdout, stderr: output.stderr, file }
    }

    fn run_all(&self, command: &str, arguments: &[&str], suffix: &str, inputs: &[&[u8]]) -> Vec<Outcome> {
        let folder = self.fresh();
        // Two at least: of one input, the output would be a file.
        let names: Vec<String> = (0..inputs.len().max(2)).map(|n| format!("case-{n}.{suffix}")).collect();
        for (number, name) in names.iter().enumerate() {
            std::fs::write(folder.join(name), inputs.get(number).unwrap_or(&inputs[0])).expect("the input is written");
        }
        let mut process = self.command(command, arguments);
        let output = process
            .current_dir(&folder)
            .args(["--keep-names", "-o", "out"])
            .args(&names)
            .output()
            .expect("the command runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = stderr.trim_end().lines().last().unwrap_or_default().to_owned();
        let outcome = |(name, _): (&String, &&[u8])| {
            let file = std::fs::read(folder.join("out").join(name)).ok();
            let mut told: String = stderr
                .lines()
                .filter(|line| line.starts_with(&format!("{name}:")))
                .map(|line| format!("{line}\n"))
                .collect();
            let counted = last.contains(" done, ") && last.ends_with(" refused");
            let code = match (&file, output.status.code()) {
                (Some(_), Some(0 | 1)) => Some(0),
                (None, Some(1)) if counted => {
                    told.push_str("0 done, 1 refused\n");
                    Some(1)
                }
                // Whatever ended this run ended it for everybody.
                (_, code) => {
                    told.push_str(&stderr);
                    code
                }
            };
            Outcome { code, stdout: output.stdout.clone(), stderr: told.into_bytes(), file }
        };
        let outcomes = names.iter().zip(inputs).map(outcome).collect();
        std::fs::remove_dir_all(&folder).ok();
        outcomes
    }

    fn command(&self, command: &str, arguments: &[&str]) -> Command {
        let mut process = Command::new(binary());
        process.arg(command).args(arguments).arg("--keys").arg(&self.keys).stdin(Stdio::null());
        process
    }

    /// An empty folder for one run.
    fn fresh(&self) -> PathBuf {
        let folder = self.folder.join(format!("run-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&folder).expect("a folder for one run");
        folder
    }
}

/// The command of this build, or the one named by `CRYPTONYM_BIN`: the checks on all records drive the release build.
fn binary() -> PathBuf {
    std::env::var_os("CRYPTONYM_BIN").map_or_else(|| env!("CARGO_BIN_EXE_cryptonym").into(), PathBuf::from)
}

/// One folder for each test program: they run at the same time.
fn stem() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    format!("product-{}", program.file_stem().unwrap_or_default().to_string_lossy())
}

/// Whether the command line is in this build. Until it is, what needs it is skipped unless `CRYPTONYM_BIN` names one, and a test in
/// `tests/hostile.rs` minds the switch.
pub const PLUGGED: bool = true;

/// Whether there is a command to drive. Prints a line where there is none.
pub fn plugged() -> bool {
    let plugged = PLUGGED || std::env::var_os("CRYPTONYM_BIN").is_some();
    if !plugged {
        super::corpora::say("skipped: no command line in this build");
    }
    plugged
}
