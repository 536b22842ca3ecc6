//! `evertail completions`, `evertail man`: what a package brings along, made from the definition of the command line itself.

use super::{Exit, Failure, arguments, output};
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The shells whose completions are tested.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

pub(super) fn completions_command() -> Command {
    Command::new("completions")
        .about("Print what completes the command line in a shell")
        .after_help(
            "Examples:\n  evertail completions bash > /usr/share/bash-completion/completions/evertail\n  \
             evertail completions zsh > /usr/share/zsh/vendor-completions/_evertail\n  \
             evertail completions fish > ~/.config/fish/completions/evertail.fish",
        )
        .arg(
            Arg::new("shell")
                .required(true)
                .value_name("SHELL")
                .value_parser(clap::builder::PossibleValuesParser::new(SHELLS.map(|shell| shell.to_string())))
                .help("The shell"),
        )
}

pub(super) fn man_command() -> Command {
    Command::new("man")
        .about("Print the manual page of a command")
        .after_help(
            "Examples:\n  evertail man | man -l -\n  evertail man token create | man -l -\n  \
             evertail man --folder /usr/share/man/man1",
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(0..)
                .help("The command; without it, evertail itself"),
        )
        .arg(
            arguments::text("folder", "FOLDER", "Write all pages into this folder, and print their names")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("command"),
        )
}

pub(super) fn run_completions(matches: &ArgMatches) -> Result<Exit, Failure> {
    let name = matches.get_one::<String>("shell").expect("clap requires it");
    let shell = SHELLS.into_iter().find(|shell| shell.to_string() == *name).expect("clap knows them");
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "evertail", &mut text);
    print(&text)
}

pub(super) fn run_man(matches: &ArgMatches) -> Result<Exit, Failure> {
    if let Some(folder) = matches.get_one::<PathBuf>("folder") {
        for page in pages(built()) {
            write(&page, folder)?;
        }
        return Ok(Exit::Ok);
    }
    let mut command = built();
    for name in matches.get_many::<String>("command").into_iter().flatten() {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| {
            Failure::usage(format!("{name:?} is not a command of {command}; `evertail --help` lists them"))
        })?;
    }
    let mut text = Vec::new();
    page(command).render(&mut text)?;
    print(&text)
}

/// The command line, in which each command knows its whole name.
fn built() -> Command {
    let mut command = arguments::command().disable_help_subcommand(true);
    command.build();
    command
}

/// The pages of a command and of those below it.
fn pages(command: Command) -> Vec<Man> {
    let below = command.get_subcommands().cloned().flat_map(pages).collect::<Vec<_>>();
    std::iter::once(page(command)).chain(below).collect()
}

fn page(command: Command) -> Man {
    Man::new(command).source(concat!("evertail ", env!("CARGO_PKG_VERSION"))).manual("Evertail")
}

fn write(page: &Man, folder: &Path) -> Result<(), Failure> {
    page.generate_to(folder).map_err(|error| {
        let (name, folder) = (page.get_filename(), folder.display());
        Failure::failed(format!(
            "{name} cannot be written: {error}; check that {folder} is there and writable"
        ))
    })?;
    Ok(output::line(&page.get_filename())?)
}

fn print(text: &[u8]) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text)?;
    stdout.flush()?;
    Ok(Exit::Ok)
}
