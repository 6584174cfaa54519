//! `settled`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;
use settled::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    // What every command needs at once is too much for the stack.
    match Box::pin(cli::run(Cli::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may be off or elsewhere; whoever typed the command reads this.
            eprintln!("settled: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
