//! Where an export goes: stdout, or a file, which may have a part of it already.

use super::format::Format;
use crate::cli::Failure;
use crate::cli::items::{Container, ItemError, Items};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

/// What a file that is gone on with has already.
#[derive(Default)]
pub(super) struct There {
    pub(super) last: Option<u64>,
    pub(super) is_begun: bool,
    /// Behind its last whole event. *Units*: bytes.
    end: u64,
}

/// Where an export goes.
pub(super) enum Sink {
    Stdout,
    File {
        file: File,
        /// Where the next event goes, if not to the end of the file. What is behind it stays until there is one, or the end:
        /// a file that was whole is so whatever happens before.
        cut: Option<u64>,
    },
    Compressed(zstd::Encoder<'static, File>),
}

impl Sink {
    /// Opens it, and says what is in it already.
    pub(super) fn open(
        path: Option<&Path>,
        format: Format,
        is_resumed: bool,
    ) -> Result<(Self, There), Failure> {
        let Some(path) = path else { return Ok((Self::Stdout, There::default())) };
        let failed = |error: io::Error| {
            let next = "choose another file with --output, or go on with this one with --resume";
            Failure::failed(format!("{} cannot be written: {error}; {next}", path.display()))
        };
        let is_compressed = path.extension().is_some_and(|extension| extension == "zst");
        if is_resumed && is_compressed {
            return Err(Failure::usage(
                "a compressed export cannot be taken up; export the rest to another file with --after",
            ));
        }
        if is_resumed && path.exists() {
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
            let there = what_is_there(&file, format).map_err(|error| {
                Failure::failed(format!(
                    "{} cannot be taken up: {error}; choose another file with --output, or its format with --format",
                    path.display()
                ))
            })?;
            let cut = Some(there.end);
            return Ok((Self::File { file, cut }, there));
        }
        let file = File::create_new(path).map_err(failed)?;
        Ok(match is_compressed {
            true => (
                Self::Compressed(zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?),
                There::default(),
            ),
            false => (Self::File { file, cut: None }, There::default()),
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match self {
            Self::Stdout => io::stdout().lock().write_all(bytes),
            Self::File { file, cut } => cut_off(file, cut.take()).and_then(|()| file.write_all(bytes)),
            Self::Compressed(encoder) => encoder.write_all(bytes),
        };
        written.map_err(Failure::from)
    }

    pub(super) fn finish(mut self, ending: &[u8]) -> Result<(), Failure> {
        self.write(ending)?;
        let finished = match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::File { file, .. } => file.sync_all(),
            Self::Compressed(encoder) => encoder.finish().and_then(|file| file.sync_all()),
        };
        finished.map_err(Failure::from)
    }
}

fn cut_off(file: &mut File, at: Option<u64>) -> io::Result<()> {
    let Some(at) = at else { return Ok(()) };
    file.set_len(at)?;
    file.seek(SeekFrom::Start(at)).map(|_| ())
}

/// Reads a file up to its last whole event. What is behind it was torn, or is the end of an array.
///
/// *Errors*: what is in it is no export in this format, so that cutting it would destroy something else.
fn what_is_there(file: &File, format: Format) -> Result<There, ItemError> {
    let reader = BufReader::with_capacity(1 << 16, file);
    match format {
        Format::CloudEventArray => elements_there(reader, format),
        Format::Lines | Format::Csv | Format::CloudEventLines => lines_there(reader, format),
    }
}

fn lines_there(mut reader: impl BufRead, format: Format) -> Result<There, ItemError> {
    let (mut there, mut line) = (There::default(), Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if !line.ends_with(b"\n") {
            return Ok(there);
        }
        // The names of the columns.
        let is_header = format == Format::Csv && !there.is_begun;
        match format.seq(&line) {
            None if !is_header => return Err(foreign(&format!("the line at byte {}", there.end))),
            seq => there.last = seq.or(there.last),
        }
        there.end += read;
        there.is_begun = true;
    }
}

fn elements_there(reader: impl BufRead, format: Format) -> Result<There, ItemError> {
    let mut there = There::default();
    let mut elements = Items::open(reader, Some(Container::Array))?;
    loop {
        match elements.next() {
            Ok(Some(event)) => {
                let seq = format.seq(event.as_bytes());
                there.last = Some(seq.ok_or_else(|| foreign(&format!("element {}", elements.number())))?);
                there.end = elements.offset();
                there.is_begun = true;
            }
            Ok(None) | Err(ItemError::Torn) => return Ok(there),
            Err(error) => return Err(error),
        }
    }
}

fn foreign(what: &str) -> ItemError {
    ItemError::Syntax(format!("{what} is no event of an export in this format"))
}
