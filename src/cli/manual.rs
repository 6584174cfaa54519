//! `settled completions` and `settled man`: what the shell and `man` know of the commands, made from them.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use super::{Cli, output};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ShellArgument {
    Bash,
    Zsh,
    Fish,
}

impl From<ShellArgument> for Shell {
    fn from(argument: ShellArgument) -> Self {
        match argument {
            ShellArgument::Bash => Self::Bash,
            ShellArgument::Zsh => Self::Zsh,
            ShellArgument::Fish => Self::Fish,
        }
    }
}

/// For which shell.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: ShellArgument,
}

/// Where to.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder, e.g. /usr/local/share/man/man1; it is made if it is not there. Pages of the same names are
    /// replaced.
    dir: PathBuf,
}

/// The commands, with what clap adds by itself.
fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

pub(super) fn completions(arguments: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        Shell::from(arguments.shell),
        &mut Cli::command(),
        "settled",
        &mut script,
    );
    match io::stdout().lock().write_all(&script) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

pub(super) fn man(arguments: &ManArgs) -> anyhow::Result<()> {
    let folder = &arguments.dir;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let pages = write_pages(&command(), "settled", folder)?;
    output::line(format_args!(
        "{pages} pages in {}; `man {}` shows the first",
        folder.display(),
        folder.join("settled.1").display()
    ))
}

/// Writes the page of a command and those of its subcommands. Answers how many there are.
fn write_pages(command: &Command, name: &str, folder: &Path) -> anyhow::Result<usize> {
    let mut page = Vec::new();
    let shown = command.clone().display_name(name.to_owned());
    clap_mangen::Man::new(shown).title(name).render(&mut page)?;
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    let mut pages = 1_usize;
    for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
        let below = write_pages(part, &format!("{name}-{}", part.get_name()), folder)?;
        pages = pages.saturating_add(below);
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_says_what_it_is_for() {
        fn look(command: &Command, path: &str, silent: &mut Vec<String>) {
            if command.get_about().is_none() {
                silent.push(path.to_owned());
            }
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                if argument.get_help().is_none() && argument.get_long_help().is_none() {
                    silent.push(format!("{path} {}", argument.get_id()));
                }
            }
            for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
                look(part, &format!("{path} {}", part.get_name()), silent);
            }
        }
        let mut silent = Vec::new();
        look(&command(), "settled", &mut silent);
        assert_eq!(silent, Vec::<String>::new());
    }

    #[test]
    fn the_command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }
}
