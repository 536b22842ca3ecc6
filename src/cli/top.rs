//! `evertail top`: what a running server does, live; from the same metrics as everyone else's.

mod figures;
mod frame;

use super::trim::json;
use super::{Exit, Failure, arguments, output};
use crate::client::{Client, ClientError};
use arguments::text;
use clap::{Arg, ArgAction, ArgMatches, Command};
use console::Term;
use figures::{Figures, Scrape};
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::signal::ctrl_c;
use tokio::time::{MissedTickBehavior, interval};

/// Shortest and longest time between two looks. *Units*: seconds.
const INTERVAL_SECONDS: (f64, f64) = (0.1, 3_600.0);

pub(super) fn command() -> Command {
    Command::new("top")
        .about("Show live what a running server does")
        .after_help(
            "Rates are those since the look before, a second ago. Redraws itself on a terminal; elsewhere prints a line of JSON \
             for each look. Where the metrics have a port of their own, name that with --url.\n\nExamples:\n  evertail top\n  \
             evertail top --once\n  evertail top --url http://127.0.0.1:9464 --json | jq .events_per_second",
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Print one frame as text, once there are two looks to compare, and end"),
        )
        .arg(text("interval", "SECONDS", "Time between two looks [default: 1]"))
        .arg(json().help("Print a line of JSON for each look [default where stdout is no terminal, but for --once]"))
        .args(arguments::server())
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let client = arguments::client(matches)?;
    let is_once = matches.get_flag("once");
    let is_json = matches.get_flag("json") || !is_once && !output::is_terminal();
    let mut ticks = interval(seconds(matches)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = (!is_once && !is_json).then(Screen::begin).transpose()?;
    let mut before: Option<Scrape> = None;
    // One for all looks: a signal between two that were made for one look each would be lost.
    let mut interrupted = pin!(ctrl_c());
    loop {
        let looked = tokio::select! {
            looked = async { ticks.tick().await; look(&client).await } => looked,
            _ = &mut interrupted => return Ok(Exit::Interrupted),
        };
        let scrape = match looked {
            Ok(scrape) => scrape,
            // It comes back, or it was never there.
            Err(error @ ClientError::Unreachable { .. }) if before.is_some() && !is_once => {
                let failure = Failure::from_error(&error, "trying again");
                match &mut screen {
                    Some(screen) => screen.draw(&[failure.message])?,
                    None => output::complain(&failure.message),
                }
                continue;
            }
            Err(error) => return Err(Failure::from_error(&error, next_step(&error))),
        };
        if let Some(before) = &before {
            let figures = Figures::between(before, &scrape);
            let lines = match is_json {
                true => vec![serde_json::to_string(&figures).expect("figures always serialise")],
                false => frame::lines(&figures),
            };
            match &mut screen {
                Some(screen) => screen.draw(&lines)?,
                None => lines.iter().try_for_each(|line| output::line(line))?,
            }
            if is_once {
                return Ok(Exit::Ok);
            }
        }
        before = Some(scrape);
    }
}

fn seconds(matches: &ArgMatches) -> Result<Duration, Failure> {
    let Some(text) = matches.get_one::<String>("interval") else { return Ok(Duration::from_secs(1)) };
    let (min, max) = INTERVAL_SECONDS;
    let seconds = text.parse().ok().filter(|seconds| (min..=max).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Failure::usage(format!(
            "--interval {text:?} is not between {min} and {max}; give it a number of seconds"
        ))
    })
}

async fn look(client: &Client) -> Result<Scrape, ClientError> {
    let text = client.metrics().await?;
    Scrape::of(&text).ok_or_else(|| ClientError::NotEvertail {
        url: client.metrics_url(),
        what: "it has no evertail_last_seq".to_owned(),
    })
}

fn next_step(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { .. } => "start the server, or name another with --url",
        ClientError::Refused { status: 401 | 403, .. } => {
            "show a token made with --metrics or --admin, with --token-file or EVERTAIL_TOKEN"
        }
        ClientError::Refused { status: 404, .. } => {
            "where the metrics have a port of their own, EVERTAIL_METRICS_LISTEN, name that with --url"
        }
        ClientError::Refused { .. } => "try again later",
        ClientError::Untrusted { .. } => "name the authority of its certificate with --ca-file",
        ClientError::NotEvertail { .. } => "name an Evertail server with --url",
    }
}

/// A frame that replaces the one before. The last one stays when it ends.
struct Screen {
    terminal: Term,
    /// Lines of the frame that is there.
    lines: usize,
}

impl Screen {
    fn begin() -> io::Result<Self> {
        let terminal = Term::buffered_stdout();
        terminal.hide_cursor()?;
        Ok(Self { terminal, lines: 0 })
    }

    /// What does not fit is cut: a line that wraps could not be replaced.
    fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let (rows, columns) = self.terminal.size();
        self.terminal.move_cursor_up(self.lines)?;
        self.terminal.clear_to_end_of_screen()?;
        self.lines = lines.len().min(usize::from(rows).saturating_sub(1));
        for line in &lines[..self.lines] {
            let fitting: String = line.chars().take(columns.into()).collect();
            self.terminal.write_line(&fitting)?;
        }
        self.terminal.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nowhere is left to say that the terminal is gone.
        let _ = self.terminal.show_cursor().and_then(|()| self.terminal.flush());
    }
}
