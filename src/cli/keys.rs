//! Key files: made with the operating system's randomness, readable by their owner alone, never overwritten but by a whole new one.
//!
//! What stands in a key file, `token::keyring` says; this page opens and writes it. No message repeats its content. The commands that
//! lead epochs through their lives are in `rotation`.

use crate::secret::SecretKey;
use crate::token::Keyring;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// Largest key file, in bytes. 63 epochs take about 12 KiB; this leaves room for comments.
const KEY_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Stands before the name of an environment variable that holds the keyring itself.
const ENVIRONMENT: &str = "env:";

/// Why a key file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Something of that name is there.
    #[error(
        "{0} exists: key files are never overwritten, for what was written under lost keys is lost; choose another name"
    )]
    Exists(String),
    /// The file could not be written.
    #[error("{0} could not be written: {1}; nothing was left there")]
    Write(String, io::Error),
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes, so no key was made: {0}")]
    Randomness(getrandom::Error),
}

/// 32 random bytes that live as long as this run.
pub fn random() -> Result<SecretKey, GenerateError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).map_err(GenerateError::Randomness)?;
    Ok(SecretKey::new(*secret))
}

/// Writes a new keyring of one active epoch, mode 0600, durable when this returns.
pub fn generate(output: &Path) -> Result<(), GenerateError> {
    let (secret, created) = fresh()?;
    write_new(output, Keyring::generate(*secret, &created).to_yaml().as_bytes()).map_err(|error| {
        let name = output.display().to_string();
        match error.kind() {
            io::ErrorKind::AlreadyExists => GenerateError::Exists(name),
            _ => GenerateError::Write(name, error),
        }
    })
}

/// 32 bytes of the operating system, and the time to the second.
pub(super) fn fresh() -> Result<(Zeroizing<[u8; 32]>, String), GenerateError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).map_err(GenerateError::Randomness)?;
    let now = jiff::Timestamp::now();
    Ok((secret, now.round(jiff::Unit::Second).unwrap_or(now).to_string()))
}

/// Puts a new text in place of a key file: whole or not at all, mode 0600, durable when this returns. The old text is then overwritten as far as
/// a file can be; a disk that writes elsewhere, a snapshot or a backup may still hold it.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = path.canonicalize()?; // a link stays a link
    let mut old = OpenOptions::new().write(true).open(&path)?;
    let chance = getrandom::u64().map_err(io::Error::other)?;
    let part = path.with_file_name(format!(".cryptonym-{chance:016x}.part"));
    write_new(&part, content)?;
    if let Err(error) = std::fs::rename(&part, &path) {
        let _ = std::fs::remove_file(&part); // the old file is still whole
        return Err(error);
    }
    sync_folder(&path)?;
    let length = old.metadata()?.len();
    old.write_all(&vec![b'#'; length as usize])?;
    old.sync_all()
}

fn write_new(output: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(output)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| sync_folder(output));
    if written.is_err() {
        // A key file of which half is there would look like a key; that it cannot be removed either adds nothing.
        let _ = std::fs::remove_file(output);
    }
    written
}

/// Makes the file's name as durable as its content.
fn sync_folder(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Reads a keyring from a file, or from the environment variable NAME where this is `env:NAME`; all mistakes at once.
/// A file that others than its owner may read is refused unless `allow_readable` (Kubernetes mounts).
pub fn load(path_or_env: &str, allow_readable: bool) -> Result<Keyring, Vec<String>> {
    let text = match path_or_env.strip_prefix(ENVIRONMENT) {
        Some(name) => read_environment(name),
        None => read_file(Path::new(path_or_env), allow_readable),
    };
    let text = text.map_err(|problem| vec![format!("{path_or_env}: {problem}")])?;
    Keyring::parse(&text)
        .map_err(|mistakes| mistakes.iter().map(|mistake| format!("{path_or_env}: {mistake}")).collect())
}

fn read_environment(name: &str) -> Result<Zeroizing<String>, String> {
    // The variable's own error would show its content.
    std::env::var(name).map(Zeroizing::new).map_err(|_| "this environment variable is not set, or not UTF-8".to_owned())
}

fn read_file(path: &Path, allow_readable: bool) -> Result<Zeroizing<String>, String> {
    let unreadable = |error: io::Error| format!("this key file cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mode = mode(&file).map_err(unreadable)?;
    if mode & !0o600 != 0 && !allow_readable {
        return Err(format!(
            "this key file has mode {mode:04o}, so others may read it: `chmod 600` it, or allow this with --allow-readable-keys"
        ));
    }
    // Room for all of it, so that no copy is left behind by growth.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(format!("this file is over {KEY_FILE_BYTES_MAX} bytes, so it is not a key file"));
    }
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
        error.into_bytes().zeroize();
        "this file is not UTF-8, so it is not a key file".to_owned()
    })
}

/// Permission bits of an open file: of the file that is read, not of what its name means a moment later.
#[cfg(unix)]
fn mode(file: &File) -> io::Result<u32> {
    Ok(std::os::unix::fs::MetadataExt::mode(&file.metadata()?) & 0o7777)
}

/// Where there are no such bits, the folder's own protection must do.
#[cfg(not(unix))]
fn mode(_: &File) -> io::Result<u32> {
    Ok(0o600)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A folder of this test's own, gone when it ends.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("cryptonym-keys-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let folder = Folder::new("private");
        let file = folder.0.join("keys.yaml");
        generate(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let name = file.to_str().unwrap();
        let keyring = load(name, false).unwrap();
        assert!(matches!(generate(&file), Err(GenerateError::Exists(_))));
        assert_eq!(*load(name, false).unwrap().to_yaml(), *keyring.to_yaml());

        let other = folder.0.join("other.yaml");
        generate(&other).unwrap();
        assert_ne!(*load(other.to_str().unwrap(), false).unwrap().to_yaml(), *keyring.to_yaml());
        assert!(matches!(generate(&folder.0.join("absent").join("keys")), Err(GenerateError::Write(..))));
    }

    #[test]
    fn what_is_no_private_key_file_is_refused() {
        let folder = Folder::new("refused");
        let file = folder.0.join("keys.yaml");
        let name = file.to_str().unwrap();
        let said = |allow| load(name, allow).unwrap_err().join("\n");
        assert!(said(false).contains("cannot be read"));
        generate(&file).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o700] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(said(false).contains("chmod 600"), "{mode:o}");
            assert!(load(name, true).is_ok());
        }
        std::fs::write(&file, [0xff]).unwrap();
        assert!(said(true).contains("not UTF-8"));
        std::fs::write(&file, vec![b'#'; KEY_FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(said(true).contains("over 262144 bytes"));
        std::fs::write(&file, "epochs: []").unwrap();
        assert!(said(true).contains("not a keyring"));
        assert!(load("env:CRYPTONYM_NO_SUCH_KEYS", false).unwrap_err()[0].contains("not set"));
    }
}
