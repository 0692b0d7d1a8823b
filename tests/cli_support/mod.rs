//! A folder of a test's own with a keyring in it, and the command run there. No function of the library is called.
#![allow(dead_code)] // each test program uses its part

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run of the command did.
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    /// The same, if it ended so.
    #[track_caller]
    pub fn with(self, code: i32) -> Done {
        assert_eq!(self.code, Some(code), "out: {}\nerr: {}", self.out, self.err);
        self
    }
}

/// The folder. It stays when the test ends, for whoever looks into a failure.
pub struct Desk(pub PathBuf);

impl Desk {
    /// An empty folder of this name, with `k.yaml` in it.
    pub fn new(name: &str) -> Desk {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).unwrap();
        let desk = Desk(folder);
        desk.run("keys generate -o k.yaml").with(0);
        desk
    }

    /// Runs `cryptonym` with these words, in the folder.
    pub fn run(&self, words: &str) -> Done {
        self.feed(words, b"")
    }

    /// The same with standard input.
    pub fn feed(&self, words: &str, input: &[u8]) -> Done {
        let mut child = Command::new(binary())
            .args(words.split_whitespace())
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that reads none of it may close the pipe.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.at(name).exists()
    }

    /// Names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The command of this build, or the one named by `CRYPTONYM_BIN`.
pub fn binary() -> PathBuf {
    std::env::var_os("CRYPTONYM_BIN").map_or_else(|| env!("CARGO_BIN_EXE_cryptonym").into(), PathBuf::from)
}

/// The text of a shipped pack.
pub fn pack(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules").join(format!("{name}.yaml"))).unwrap()
}
