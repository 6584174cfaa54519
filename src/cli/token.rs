//! `settled token`.

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};

use super::output;
use crate::web::auth::{Role, check_name, new_token};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token for the API.
    ///
    /// The token goes to standard output, once: give it to its holder. The line that lets them in goes to
    /// standard error: add it to `http.tokens_file`, which the daemon reads again by itself. Removing the line
    /// takes the token back.
    New {
        /// Whose it is: the name that the journal will have.
        name: String,
        /// What its holder may do.
        #[arg(long, default_value = "read-only")]
        role: RoleArgument,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RoleArgument {
    ReadOnly,
    Operator,
}

pub(super) fn run(command: TokenCommand) -> anyhow::Result<()> {
    let TokenCommand::New { name, role } = command;
    check_name(&name).map_err(anyhow::Error::msg)?;
    let role = match role {
        RoleArgument::ReadOnly => Role::ReadOnly,
        RoleArgument::Operator => Role::Operator,
    };
    let (token, line) = new_token(&name, role);
    output::line(token.as_str())?;
    output::error_line(line).context("the line for http.tokens_file could not be shown")
}
