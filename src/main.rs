//! The `evertail` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    evertail::cli::run()
}
