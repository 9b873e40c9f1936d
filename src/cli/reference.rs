//! `completions` and `manual`: what shells and `man` want to know, made from the command tree itself.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use serde_json::json;

use super::output::{self, Format, Status};

/// Prints completions.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade completions bash > /etc/bash_completion.d/nbi-upgrade
  nbi-upgrade completions zsh > ~/.zfunc/_nbi-upgrade
  nbi-upgrade completions fish > ~/.config/fish/completions/nbi-upgrade.fish")]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, command: &mut Command) -> anyhow::Result<Status> {
        let mut script = Vec::new();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, command, &name, &mut script);
        if self.shell == Shell::Bash {
            script = with_one_name(&script, &name);
        }
        // A reader that has gone away is no reason to fail.
        drop(std::io::stdout().lock().write_all(&script));
        Ok(Status::Done)
    }
}

/// Where its name has a hyphen, the generator names the program in two ways, so that bash would complete nothing.
fn with_one_name(script: &[u8], name: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(script);
    text.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
        .into_bytes()
}

/// Writes manual pages.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nbi-upgrade manual /usr/local/share/man/man1 && man nbi-upgrade-dead-requeue
  nbi-upgrade manual pages && man ./pages/nbi-upgrade.1")]
pub(super) struct Manual {
    /// The directory for the pages; made if it is not there.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Manual {
    pub(super) fn run(self, command: Command, format: Format) -> anyhow::Result<Status> {
        let directory = self.directory;
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make the directory {}", directory.display()))?;
        // Global options belong to every page, and names to be typed too: both are filled in by building.
        let mut command = command;
        command.build();
        let mut pages = 0;
        write(&command, &directory, &mut pages)?;
        match format {
            Format::Text => output::line(&format!(
                "{} written to {}",
                output::count(pages, "page"),
                directory.display()
            )),
            Format::Json => {
                output::line(&json!({"pages": pages, "directory": directory}).to_string());
            }
        }
        Ok(Status::Done)
    }
}

/// Examples are lines to be typed: `man` must neither join nor stretch them.
fn with_lines_kept(page: &str) -> String {
    let Some((before, examples)) = page.split_once(".SH EXTRA\n") else {
        return page.to_owned();
    };
    let (examples, after) = match examples.find("\n.SH ") {
        Some(end) => examples.split_at(end + 1),
        None => (examples, ""),
    };
    format!("{before}.SH EXAMPLES AND NOTES\n.nf\n{examples}.fi\n{after}")
}

/// The page of a command, and those of its own commands.
fn write(command: &Command, directory: &Path, pages: &mut usize) -> anyhow::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    let page = with_lines_kept(&String::from_utf8_lossy(&page));
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page).with_context(|| format!("failed to write {}", path.display()))?;
    *pages += 1;
    for inner in command.get_subcommands() {
        if inner.get_name() != "help" {
            write(inner, directory, pages)?;
        }
    }
    Ok(())
}
