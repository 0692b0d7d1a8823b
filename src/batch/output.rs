//! Where output goes: standard output, or a file that appears under its name only when it is whole.

use flate2::{Compression, GzBuilder, write::GzEncoder};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// An output being written. Dropped before [`commit`](Output::commit), a file leaves nothing behind.
pub struct Output {
    sink: Option<Sink>,
    paths: Option<(PathBuf, PathBuf)>,
}

enum Sink {
    Stdout(io::Stdout),
    Plain(BufWriter<File>),
    Packed(GzEncoder<BufWriter<File>>),
}

impl Output {
    /// Standard output. Output may precede a refusal there (contract §3).
    pub fn stdout() -> Self {
        Output { sink: Some(Sink::Stdout(io::stdout())), paths: None }
    }

    /// A file, written beside its name first; compressed where the name ends in `.gz`, without name or time in the header.
    pub fn file(path: &Path) -> io::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = BufWriter::with_capacity(256 * 1024, options.open(&part)?);
        let packed = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let sink = if packed {
            Sink::Packed(GzBuilder::new().mtime(0).write(file, Compression::new(4)))
        } else {
            Sink::Plain(file)
        };
        Ok(Output { sink: Some(sink), paths: Some((part, path.to_owned())) })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Some(Sink::Stdout(out)) => out.lock().write_all(bytes),
            Some(Sink::Plain(out)) => out.write_all(bytes),
            Some(Sink::Packed(out)) => out.write_all(bytes),
            None => Err(io::Error::other("written after its end")),
        }
    }

    /// Makes the file durable and gives it its name.
    pub fn commit(mut self) -> io::Result<()> {
        let file = match self.sink.take() {
            Some(Sink::Stdout(mut out)) => return out.flush(),
            Some(Sink::Plain(out)) => out.into_inner().map_err(|e| e.into_error())?,
            Some(Sink::Packed(out)) => out.finish()?.into_inner().map_err(|e| e.into_error())?,
            None => return Ok(()),
        };
        file.sync_all()?;
        if let Some((part, path)) = self.paths.take() {
            std::fs::rename(&part, &path)?;
        }
        Ok(())
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
