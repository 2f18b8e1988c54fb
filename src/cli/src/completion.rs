//! `completion`: scripts that complete hull's commands and options in a shell.

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use crate::{commands, out};

/// Print a script that completes commands and options in a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hull completion bash > /etc/bash_completion.d/hull
  hull completion zsh > \"${fpath[1]}/_hull\"
  hull completion fish > ~/.config/fish/completions/hull.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Choice,
}

/// Shells that there is a script for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

/// `hull completion`.
pub(crate) fn completion(args: CompletionArgs) -> anyhow::Result<u8> {
    out(&script(args.shell))?;
    Ok(0)
}

fn script(shell: Choice) -> String {
    let shell = match shell {
        Choice::Bash => Shell::Bash,
        Choice::Zsh => Shell::Zsh,
        Choice::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut commands::command(), "hull", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_the_commands() {
        for (shell, word) in [
            (Choice::Bash, "complete -F _hull"),
            (Choice::Zsh, "#compdef hull"),
            (Choice::Fish, "complete -c hull"),
        ] {
            let script = script(shell);
            assert!(
                script.contains(word) && script.contains("no-trunc"),
                "{shell:?}"
            );
        }
    }
}
