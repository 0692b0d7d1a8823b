//! Notices that a file of the configuration has changed, by looking at what the files hold.
//!
//! No notifications of the file system: they do not come over network mounts, and a Kubernetes mount changes by swapping
//! a link two folders up. Looking costs a hash of a few small files each time. A change counts once two looks in a row see
//! the same, so that a file which is just being written, or a certificate whose key is still to come, is left to settle.
//! Only digests are kept; what the files hold is wiped.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// Between two looks. A change is taken within two.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Longest part of a file that is looked at, in bytes: more than any of them may hold.
const LOOK_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The files of a configuration, and what they held.
pub struct Watch {
    files: BTreeSet<PathBuf>,
    /// At the last look.
    seen: [u8; 32],
    /// When they were last read as a configuration.
    read: [u8; 32],
}

impl Watch {
    /// These files have just been read.
    pub fn new(files: BTreeSet<PathBuf>) -> Watch {
        let seen = digest(&files);
        Watch { files, seen, read: seen }
    }

    /// Whether they hold something else than when they were read, and no longer change.
    pub fn changed(&mut self) -> bool {
        let now = digest(&self.files);
        let settled = now == self.seen;
        self.seen = now;
        settled && now != self.read
    }

    /// They were read after the last look, and these are the files now.
    pub fn read(&mut self, files: BTreeSet<PathBuf>) {
        if files != self.files {
            self.seen = digest(&files);
            self.files = files;
        }
        self.read = self.seen; // as it was before reading: what changed in between is still to come
    }
}

/// Over names and contents. A file that cannot be read is told from an empty one.
fn digest(files: &BTreeSet<PathBuf>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for path in files {
        let mut bytes = Zeroizing::new(Vec::new());
        let read = File::open(path).and_then(|file| file.take(LOOK_BYTES_MAX).read_to_end(&mut bytes));
        let length = read.map_or(u64::MAX, |length| length as u64);
        for part in [path.as_os_str().as_encoded_bytes(), &bytes] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(length.to_be_bytes());
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_change_counts_once_it_has_settled_and_only_once() {
        let folder = std::env::temp_dir().join(format!("cryptonym-watch-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("one")).unwrap();
        std::fs::create_dir_all(folder.join("two")).unwrap();
        std::fs::write(folder.join("one/a"), "first").unwrap();
        std::fs::write(folder.join("two/a"), "second").unwrap();
        // As the kubelet does it: the file is a link through `..data`, and `..data` is swapped.
        symlink("one", folder.join("..data")).unwrap();
        symlink("..data/a", folder.join("a")).unwrap();
        let swap = |to: &str| {
            symlink(to, folder.join("..tmp")).unwrap();
            std::fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
        };
        let files = BTreeSet::from([folder.join("a"), folder.join("missing")]);
        let mut watch = Watch::new(files.clone());
        assert!(!watch.changed());
        swap("two");
        assert!(!watch.changed(), "it may still change");
        assert!(watch.changed());
        watch.read(files.clone());
        assert!(!watch.changed() && !watch.changed(), "it was read");
        swap("one");
        assert!(!watch.changed());
        swap("two");
        assert!(!watch.changed() && !watch.changed(), "it is as it was read");
        std::fs::write(folder.join("missing"), "").unwrap();
        assert!(!watch.changed());
        assert!(watch.changed(), "an empty file is not a missing one");
        std::fs::write(folder.join("more"), "x").unwrap();
        let more = files.into_iter().chain([folder.join("more")]).collect();
        watch.read(more);
        assert!(!watch.changed());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
