//! The command line: what can be asked, and which room answers.

mod actions;
mod alerts;
mod archive;
mod backup;
mod book;
mod demo;
mod doctor;
mod evidence;
mod jobs;
mod key;
mod manual;
mod output;
mod progress;
mod quarantine;
mod reconcile;
mod run;
mod sandbox;
mod status;
mod switch;
mod sync;
mod target;
mod token;
mod topology;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::{config::Config, control::Caller, secret_file};

/// The settlement worker of an exchange partner of BitGo's off-exchange settlement (OES).
///
/// It takes pending allocations and deallocations from RabbitMQ, decides cleared or released against
/// its own book, signs the update and PUTs it to OES until the outcome is known.
#[derive(Debug, Parser)]
#[command(name = "settled", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration file. Without it, settled.toml is read if it exists, and the environment:
    /// `SETTLED__SECTION__KEY` overrides `section.key`.
    #[arg(long, short, global = true, env = "SETTLED_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file with your token of `http.tokens_file`: it proves to the daemon who you are. Without it, the name
    /// that you are logged in with is taken.
    #[arg(long, global = true, env = "SETTLED_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon.
    Run,
    /// Declare the queues and exchanges, with all their arguments, and say what was declared.
    Topology,
    /// Check configuration, key, book, broker and OES, and say what is wrong and what to do.
    Doctor,
    /// Everything at a glance: what needs a person, the daemon's parts, jobs by state, amounts at risk, what
    /// is switched off, and what OES did not accept last.
    ///
    /// Exits with 0 if nothing needs a person, with 1 if something does, and with 2 if it cannot be read.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at what people are told of, and try the ways by which they are told.
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
    /// List, watch and show jobs; let parked ones go on, approve, refuse, and say how OES ended them.
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Look at messages that could not act, and put them back in.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    Actions(actions::ActionsArgs),
    Switch(switch::SwitchArgs),
    /// Look at the book and bring facts into it.
    #[command(subcommand)]
    Book(book::BookCommand),
    /// Compare jobs, balances and reserved records with OES.
    Reconcile(reconcile::ReconcileArgs),
    /// Prove the book: the file, every balance, the journal's chain over all that never changes, and
    /// every signature. Needs neither daemon nor network. Exits with 1 on any fault.
    Verify(verify::VerifyArgs),
    /// Move the history of old final jobs into the archive now.
    ///
    /// A daemon does so by itself, now and then. With a daemon running, it is told to do so at once, and this command does not wait for the end of it.
    Archive,
    /// Copy the book to FILE, also while a daemon runs, and verify the copy.
    ///
    /// The copy is the book as it was at one moment. It is written to FILE.partial, synced, verified as
    /// `settled verify` does, and only then named FILE; an existing FILE is never replaced. The log beside
    /// the book (-wal) grows for as long as the copying lasts, by what is committed meanwhile. With
    /// --archives, the archives are copied after the book; never use copies that were made before it.
    Backup(backup::BackupArgs),
    /// Look at the signing key and sign with it.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Make tokens for the API.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Stand in for OES: serve its routes, play a client, make things go wrong.
    Sandbox(Box<sandbox::SandboxArgs>),
    /// Show the worker at work: a sandbox, the daemon, clients that allocate and deallocate, repeated
    /// and malformed messages, lost answers. Needs a broker; `make demo` brings one.
    Demo(demo::DemoArgs),
    /// Ask the daemon's listener whether it is alive, for container health checks.
    Health,
    /// Write what completes these commands in a shell, to standard output.
    ///
    /// For example: `settled completions bash > /etc/bash_completion.d/settled`; for zsh into a file `_settled`
    /// in a folder of `$fpath`, for fish into `~/.config/fish/completions/settled.fish`.
    Completions(manual::CompletionsArgs),
    /// Write a manual page for each command into a folder.
    Man(manual::ManArgs),
}

/// What was asked could not be looked at, so that nothing can be said about it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
struct NotDone(&'static str);

/// The comparison with OES.
const NOT_COMPARED: NotDone = NotDone("the comparison could not be done");
/// The status.
const NOT_READ: NotDone = NotDone("the status could not be read");

/// The exit code that a failure of a command stands for.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<NotDone>() { NOT_DONE } else { FAILED }
}

/// The exit code of a command that failed, or found a difference.
const FAILED: u8 = 1;
/// The exit code of a look that could not be had.
const NOT_DONE: u8 = 2;

/// Who asks, as far as the system knows: the user's number, and the name they go by; and their token.
fn caller(token_file: Option<&Path>) -> anyhow::Result<Caller> {
    let name = ["SUDO_USER", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
    let uid = rustix::process::getuid().as_raw();
    let who = name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"));
    let token = token_file.map(secret_file::read).transpose()?;
    Ok(Caller { who, token })
}

/// Carries out a command line.
///
/// # Errors
/// What went wrong, for whoever typed it.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    // Whatever a command makes is its owner's only: database, lock, socket.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let load = || Config::load(cli.config.as_deref());
    let caller = caller(cli.token_file.as_deref())?;
    match cli.command {
        Command::Run => run::run(load()?).await,
        Command::Topology => topology::run(&load()?).await,
        Command::Doctor => doctor::run(cli.config.as_deref()).await,
        Command::Status { json } => {
            let config = load().map_err(|error| anyhow::Error::from(error).context(NOT_READ))?;
            status::run(&config, &caller, json).await
        }
        Command::Alerts(command) => alerts::run(&load()?, command).await,
        Command::Jobs(command) => jobs::run(&load()?, &caller, command).await,
        Command::Quarantine(command) => quarantine::run(&load()?, &caller, command).await,
        Command::Actions(arguments) => actions::run(&load()?, arguments).await,
        Command::Switch(arguments) => switch::run(&load()?, &caller, &arguments).await,
        Command::Token(command) => token::run(command),
        Command::Book(command) => book::run(&load()?, &caller, command).await,
        Command::Reconcile(arguments) => {
            let config =
                load().map_err(|error| anyhow::Error::from(error).context(NOT_COMPARED))?;
            reconcile::run(&config, &caller, &arguments).await
        }
        Command::Verify(arguments) => verify::run(|| Ok(load()?), arguments).await,
        Command::Archive => archive::run(&load()?, &caller).await,
        Command::Backup(arguments) => backup::run(&load()?, &arguments).await,
        Command::Key(command) => key::run(load, command),
        Command::Sandbox(arguments) => sandbox::run(load, *arguments).await,
        Command::Demo(arguments) => demo::run(&load()?, &arguments).await,
        Command::Health => {
            crate::web::probe(load()?.http.listen).await.map_err(|reason| anyhow::anyhow!(reason))
        }
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    }
}
