//! `cryptonym help` and `cryptonym completions`: codes, commands, and the words of a shell.

use super::{Command, DONE, say, tell};
use crate::rewrite::Code;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::process::ExitCode;

/// Arguments of `help`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cryptonym help unknown-element
  cryptonym help keys activate")]
pub struct Help {
    /// The code of a refusal, as in refused[CODE], or a command; `codes` lists all codes
    #[arg(value_name = "CODE|COMMAND")]
    topic: Vec<String>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cryptonym completions bash > ~/.local/share/bash-completion/completions/cryptonym")]
pub struct Completions {
    /// bash, elvish, fish, powershell, zsh
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// A code and its words.
struct Word {
    code: &'static str,
    status: u16,
    what: &'static str,
    help: &'static str,
}

/// Every code that a refusal can bear, of the rewriter and of the proxy.
fn codes() -> Vec<Word> {
    let word = |code: &Code| {
        let (status, what, help) = (code.http_status(), code.what(), code.advice());
        Word { code: code.as_str(), status, what, help }
    };
    let words: Vec<Word> = Code::ALL.iter().map(word).collect();
    #[cfg(feature = "proxy")]
    let words = words.into_iter().chain(proxy()).collect();
    words
}

#[cfg(feature = "proxy")]
fn proxy() -> impl Iterator<Item = Word> {
    crate::proxy::respond::Failure::every().into_iter().map(|failure| failure.words()).map(|words| Word {
        code: words.code,
        status: words.status.as_u16(),
        what: words.what,
        help: words.help,
    })
}

/// Explains a code or a command.
pub fn help(args: &Help) -> ExitCode {
    let mut command = Command::command();
    command.build();
    let Some(first) = args.topic.first() else {
        tell(format_args!("{}", command.render_long_help()));
        return ExitCode::from(DONE);
    };
    if first == "codes" {
        for word in codes() {
            tell(format_args!("{}: {}", word.code, word.what));
        }
        return ExitCode::from(DONE);
    }
    // As it stands in the message, too.
    let named = first.trim_start_matches("refused[").trim_end_matches(']');
    if let Some(word) = codes().into_iter().find(|word| word.code == named) {
        tell(format_args!(
            "{}: {}\nWhat to do: {}\nHTTP status through the proxy: {}",
            word.code, word.what, word.help, word.status
        ));
        return ExitCode::from(DONE);
    }
    let mut found = &mut command;
    for name in &args.topic {
        match found.find_subcommand_mut(name) {
            Some(next) => found = next,
            None => return say::usage("help: no such code or command; help: `cryptonym help codes` lists all codes"),
        }
    }
    tell(format_args!("{}", found.render_long_help()));
    ExitCode::from(DONE)
}

/// Writes the completions of a shell to standard output.
pub fn completions(args: &Completions) -> ExitCode {
    clap_complete::generate(args.shell, &mut Command::command(), "cryptonym", &mut std::io::stdout());
    ExitCode::from(DONE)
}
