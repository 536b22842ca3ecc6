//! How far a long command is: a bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// A bar for so many steps, on stderr.
pub(super) fn bar(steps: u64, unit: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::hidden());
    }
    let template =
        format!("{{bar:30}} {{percent:>3}}% {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style)
}

/// A bar that is gone with the value.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(steps: u64, unit: &str) -> Self {
        Self(bar(steps, unit))
    }

    pub(super) fn move_to(&self, done: u64, steps: u64) {
        self.0.set_length(steps);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
