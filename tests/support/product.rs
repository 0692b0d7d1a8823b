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

    fn run(&self, command: &str, arguments: &[&str], suffix: &str, input: &[u8]) -> Outcome {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (from, to) =
            (self.folder.join(format!("in-{number}.{suffix}")), self.folder.join(format!("out-{number}.{suffix}")));
        std::fs::write(&from, input).expect("the input is written");
        let mut process = Command::new(binary());
        process
            .arg(command)
            .args(arguments)
            .arg("--keys")
            .arg(&self.keys)
            .arg("-o")
            .arg(&to)
            .arg(&from)
            .stdin(Stdio::null());
        let output = process.output().expect("the command runs");
        let file = std::fs::read(&to).ok();
        for path in [from, to] {
            std::fs::remove_file(path).ok();
        }
        Outcome { code: output.status.code(), stdout: output.stdout, stderr: output.stderr, file }
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

/// Whether the command line is in this build. Until it is, what needs it is skipped, and a test in `tests/hostile.rs` minds the switch.
pub const PLUGGED: bool = false;
