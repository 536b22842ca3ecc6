//! `evertail export`: history to a file or to stdout, whole or told.

use super::{Exit, Failure, arguments, output, progress};
use crate::client::{Client, ClientError, History};
use clap::ArgMatches;
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// Attempts to take up a broken connection without a single event gained.
const ATTEMPTS_MAX: u32 = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    Csv,
}

impl Format {
    /// Without names of columns where the file has them already.
    fn accept(self, is_first: bool) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Csv if is_first => "text/csv",
            Self::Csv => "text/csv; header=absent",
        }
    }

    /// The seq of the event on a line, `None` for the names of the columns.
    fn seq(self, line: &[u8]) -> Option<u64> {
        let digits = match self {
            Self::Lines => line.strip_prefix(b"{\"seq\":")?,
            Self::Csv => line,
        };
        let end = digits.iter().position(|byte| *byte == b',' || *byte == b'}')?;
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    }
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let client = arguments::client(matches)?;
    let (stream, mut query) = arguments::selection(matches);
    if let Some(until) = matches.get_one::<String>("until") {
        query.append_pair("until", until);
    }
    let selection = query.finish();
    let path = matches.get_one::<String>("output").map(Path::new);
    let name = path.and_then(Path::to_str).unwrap_or_default();
    let format = match matches.get_one::<String>("format").map(String::as_str) {
        Some("csv") => Format::Csv,
        None if name.trim_end_matches(".zst").ends_with(".csv") => Format::Csv,
        _ => Format::Lines,
    };
    let (mut sink, there) = Sink::open(path, format, matches.get_flag("resume"))?;
    let resumed = there.last;

    // The export ends where the log ends now, however often the connection breaks.
    let begin = match resumed {
        Some(after) => format!("after={after}"),
        None => form_urlencoded::Serializer::new(String::new())
            .extend_pairs(arguments::beginning(matches))
            .finish(),
    };
    let bounds = bounds(&client, stream, &join(&[&begin, &selection])).await?;
    let through =
        matches.get_one::<u64>("before").map_or(bounds.last_seq, |before| bounds.last_seq.min(before - 1));
    let first = resumed.unwrap_or(bounds.first_seq.saturating_sub(1));
    let bar = progress::bar(through.saturating_sub(first), "events");
    let mut export = Export { format, last: resumed, events: 0, has_header: there.has_lines };
    let mut attempts = 0;
    while export.last.is_none_or(|last| last < through) && through > 0 {
        let begin = export.last.map_or_else(|| begin.clone(), |last| format!("after={last}"));
        let query = join(&[&begin, &format!("before={}", through + 1), &selection]);
        let before = export.events;
        let asked = client.history(stream, &query, format.accept(!export.has_header)).await;
        let outcome = match asked {
            Ok(history) => {
                export.take(history, &mut sink, |last| bar.set_position(last.saturating_sub(first))).await?
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => break,
            Err(error @ ClientError::Refused { is_retryable: false, .. }) => {
                return Err(Failure::from_error(&error, "change the request as it says"));
            }
            Err(error) => {
                attempts = if export.events > before { 1 } else { attempts + 1 };
                if attempts >= ATTEMPTS_MAX {
                    return Err(Failure::from_error(
                        &error,
                        "what is written is whole lines; go on with --resume",
                    ));
                }
                tokio::time::sleep(Duration::from_millis(100 << attempts)).await;
            }
        }
    }
    bar.finish_and_clear();
    sink.finish()?;
    if path.is_some() {
        let last = export.last.map_or_else(String::new, |last| format!(", the last is seq {last}"));
        output::complain(&format!("exported {} events{last}", export.events));
    }
    Ok(Exit::Ok)
}

fn join(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("&")
}

#[derive(Deserialize)]
struct Bounds {
    first_seq: u64,
    last_seq: u64,
}

async fn bounds(client: &Client, stream: Option<&str>, query: &str) -> Result<Bounds, Failure> {
    let bounds = match client.history(stream, &join(&[query, "limit=1"]), "application/json").await {
        Ok(page) => page.json().await,
        Err(error) => Err(error),
    };
    bounds.map_err(|error| Failure::from_error(&error, "name an Evertail server with --url"))
}

/// What has been written.
struct Export {
    format: Format,
    last: Option<u64>,
    events: u64,
    has_header: bool,
}

impl Export {
    /// Writes whole lines as they come. The outer error is the sink's, the inner one the connection's.
    async fn take(
        &mut self,
        mut history: History,
        sink: &mut Sink,
        show: impl Fn(u64),
    ) -> Result<Result<(), ClientError>, Failure> {
        let mut rest: Vec<u8> = Vec::new();
        loop {
            match history.chunk().await {
                Ok(Some(chunk)) => {
                    rest.extend_from_slice(&chunk);
                    let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
                    let lines = &rest[..=end];
                    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                        if let Some(seq) = self.format.seq(line) {
                            self.last = Some(seq);
                            self.events += 1;
                        }
                    }
                    sink.write(lines)?;
                    self.has_header = true;
                    rest.drain(..=end);
                    self.last.iter().for_each(|last| show(*last));
                }
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

/// What a file that is gone on with has already.
#[derive(Default)]
struct There {
    last: Option<u64>,
    has_lines: bool,
}

/// Where an export goes.
enum Sink {
    Stdout,
    File(File),
    Compressed(zstd::Encoder<'static, File>),
}

impl Sink {
    /// Opens it, and says what is in it already.
    fn open(path: Option<&Path>, format: Format, is_resumed: bool) -> Result<(Self, There), Failure> {
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
            let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
            let there = cut_to_whole_lines(&mut file, format).map_err(failed)?;
            return Ok((Self::File(file), there));
        }
        let file = File::create_new(path).map_err(failed)?;
        Ok(match is_compressed {
            true => (
                Self::Compressed(zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?),
                There::default(),
            ),
            false => (Self::File(file), There::default()),
        })
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let written = match self {
            Self::Stdout => io::stdout().lock().write_all(lines),
            Self::File(file) => file.write_all(lines),
            Self::Compressed(encoder) => encoder.write_all(lines),
        };
        written.map_err(Failure::from)
    }

    fn finish(self) -> Result<(), Failure> {
        let finished = match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::File(file) => file.sync_all(),
            Self::Compressed(encoder) => encoder.finish().and_then(|file| file.sync_all()),
        };
        finished.map_err(Failure::from)
    }
}

/// Takes an unfinished line off the end, and returns what is left.
fn cut_to_whole_lines(file: &mut File, format: Format) -> io::Result<There> {
    let mut reader = BufReader::new(&mut *file);
    let (mut last, mut whole, mut line) = (None, 0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if !line.ends_with(b"\n") {
            break;
        }
        whole += read;
        last = format.seq(&line).or(last);
    }
    file.set_len(whole)?;
    file.seek(SeekFrom::End(0))?;
    Ok(There { last, has_lines: whole > 0 })
}
