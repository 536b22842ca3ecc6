//! A page: what a reader is given in one step, gathered from frames.

use super::{Format, Frames};
use crate::event::{Selection, Seq};
use bytes::Bytes;

/// A piece of shared bytes that is sent by itself rather than copied together with the next. *Units*: bytes.
const PIECE_BYTES_ENOUGH: usize = 16 << 10;

/// What a reader is given in one step: formatted bytes, and the cursor that stands behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Whole frames or lines; empty when nothing in the range was wanted.
    pub bytes: Bytes,
    /// How many events the bytes hold.
    pub events: usize,
    /// The last event in the bytes.
    pub last_seq: Option<Seq>,
    /// Everything up to here was given or not wanted; at least `last_seq`.
    pub cursor: Seq,
    /// The last event in the bytes is the final one of its stream.
    pub is_end: bool,
}

/// Gathers a page from frames, in order, up to a bound.
///
/// Neighbouring frames are one slice of shared memory. A large slice is a page by itself, and costs its reader no memory;
/// many small pieces are copied together, so that a page is one write.
#[derive(Debug)]
pub struct PageBuilder<'a> {
    selection: &'a Selection,
    format: Format,
    bytes_max: usize,
    events_max: usize,
    pieces: Vec<Bytes>,
    bytes: usize,
    page_events: usize,
    last_seq: Option<Seq>,
    cursor: Seq,
    is_end: bool,
}

impl<'a> PageBuilder<'a> {
    /// A page of what comes after the cursor.
    ///
    /// *Bounds*: at most `events_max` events, and no further event once `bytes_max` bytes are reached; one event
    /// larger than that is a page of its own.
    pub fn new(
        cursor: Seq,
        selection: &'a Selection,
        format: Format,
        bytes_max: usize,
        events_max: usize,
    ) -> Self {
        Self {
            selection,
            format,
            bytes_max,
            events_max,
            pieces: Vec::new(),
            bytes: 0,
            page_events: 0,
            last_seq: None,
            cursor,
            is_end: false,
        }
    }

    /// Adds what is wanted of these frames after the cursor and up to `through`. Returns false once the page is full.
    pub fn add(&mut self, frames: &Frames, through: Seq) -> bool {
        // The slice of shared bytes that is being extended, so that a run of wanted frames is one piece.
        let mut run = 0..0;
        let from = frames.marks.partition_point(|mark| mark.seq <= self.cursor);
        for mark in frames.marks[from..].iter().take_while(|mark| mark.seq <= through) {
            if self.is_full() {
                break;
            }
            self.cursor = mark.seq;
            if !self.selection.matches_names(&mark.stream, &mark.r#type)
                || !frames.passes(mark, &self.selection.filter)
            {
                continue;
            }
            self.page_events += 1;
            self.last_seq = Some(mark.seq);
            self.is_end = mark.r#type.is_closed();
            let Some((start, end)) = Frames::cut(mark, self.format) else {
                self.push(frames.anew(mark, self.format));
                continue;
            };
            self.bytes += end - start;
            if run.end == start {
                run.end = end;
            } else {
                if !run.is_empty() {
                    self.pieces.push(frames.bytes.slice(run));
                }
                run = start..end;
            }
        }
        if !run.is_empty() {
            self.pieces.push(frames.bytes.slice(run));
        }
        let is_one_large_piece = self.pieces.len() == 1 && self.bytes >= PIECE_BYTES_ENOUGH;
        !self.is_full() && !is_one_large_piece
    }

    fn is_full(&self) -> bool {
        self.page_events >= self.events_max || self.bytes >= self.bytes_max
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    /// The page. `scanned_to` is how far the source was read: where nothing more was wanted, the cursor moves there.
    pub fn finish(mut self, scanned_to: Option<Seq>) -> Page {
        let bytes = match self.pieces.len() {
            1 => self.pieces.swap_remove(0),
            _ => Bytes::from(self.pieces.concat()),
        };
        let cursor = scanned_to.unwrap_or(0).max(self.cursor);
        Page { bytes, events: self.page_events, last_seq: self.last_seq, cursor, is_end: self.is_end }
    }
}
