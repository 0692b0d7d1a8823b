//! Where output goes: standard output, or a file that appears under its name only when it is whole.

use crate::encoding::{Coding, Writer};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 256 * 1024;

/// An output being written. Dropped before [`commit`](Output::commit), a file leaves nothing behind.
pub struct Output {
    sink: Option<Sink>,
    paths: Option<(PathBuf, PathBuf)>,
}

enum Sink {
    Stdout(io::Stdout),
    File(Box<Writer<BufWriter<File>>>),
}

impl Output {
    /// Standard output. Output may precede a refusal there (contract §3).
    pub fn stdout() -> Self {
        Output { sink: Some(Sink::Stdout(io::stdout())), paths: None }
    }

    /// A file, written beside its place first, under a name of chance that tells nothing and takes no other file's place;
    /// compressed as its name says.
    pub fn file(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (part, file) = beside(path)?;
        let paths = Some((part, path.to_owned()));
        // From here on a failure takes the part away.
        let mut output = Output { sink: None, paths };
        let writer = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, file), Coding::of(&name).0)?;
        output.sink = Some(Sink::File(Box::new(writer)));
        Ok(output)
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Some(Sink::Stdout(out)) => out.lock().write_all(bytes),
            Some(Sink::File(out)) => out.write_all(bytes),
            None => Err(io::Error::other("written after its end")),
        }
    }

    /// Makes the file durable and gives it its name.
    pub fn commit(mut self) -> io::Result<()> {
        let file = match self.sink.take() {
            Some(Sink::Stdout(mut out)) => return out.flush(),
            Some(Sink::File(out)) => out.finish()?.into_inner().map_err(|e| e.into_error())?,
            None => return Ok(()),
        };
        file.sync_all()?;
        if let Some((part, path)) = &self.paths {
            std::fs::rename(part, path)?;
        }
        self.paths = None;
        Ok(())
    }
}

/// A new file in the folder of `path`, readable by its owner alone.
fn beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    loop {
        let chance = getrandom::u64().map_err(io::Error::other)?;
        let part = path.with_file_name(format!(".cryptonym-{chance:016x}.part"));
        match options.open(&part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
            Ok(file) => return Ok((part, file)),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((part, _)) = self.paths.take() {
            drop(self.sink.take());
            let _ = std::fs::remove_file(part); // a refused document leaves nothing; what cannot be removed is only half a file
        }
    }
}
