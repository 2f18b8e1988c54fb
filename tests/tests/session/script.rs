//! Transcripts: commands as they are typed, and what they print.
//!
//! ```text
//! # A comment.
//! $ docker run --rm demo sh -c 'echo out; exit 3'
//! out
//! [3]
//! ```
//!
//! A command is a line of the shell, in which `docker` is what is tested. Both of its outputs are expected together, and
//! its exit code unless it is 0. Blanks between columns may be more than three. In what is expected,
//!
//! - `{id}` and `{short}` are an identifier and its beginning, `{ago}` and `{for}` how long ago and for how long, `{time}` and
//!   `{date}` moments as logs and as listings have them, `{name}` a name that was made up, `{size}` a size, `{n}` a number and
//!   `{any}` any text;
//! - `{error}` is how an error begins: `hull: `, or what Docker has in its place;
//! - lines that begin with `hull| ` or `docker| ` are expected of this one alone; those that begin with `serve| ` of Docker's
//!   command line with hull's service, in the place of `docker| `.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;

/// The most that a command may take in a busy emulated machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What is tested.
pub(crate) enum Subject<'a> {
    /// hull, with a store and a kind of isolation.
    Hull {
        root: &'a Path,
        isolation: &'static str,
    },
    /// Docker's command line, with this service.
    Docker { host: String },
    /// Docker's command line, with hull's service.
    Serve { host: String },
}

/// A command and what it is to print.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
    code: i32,
}

impl Step {
    fn expects(&self, lines: &[String]) -> Result<bool> {
        if lines.len() != self.expected.len() {
            return Ok(false);
        }
        for (line, expected) in lines.iter().zip(&self.expected) {
            if !pattern(expected)?.is_match(line) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Subject<'_> {
    /// Whose lines are expected: of a step that has some of the first's, these.
    fn prefixes(&self) -> &'static [&'static str] {
        match self {
            Subject::Hull { .. } => &["hull| "],
            Subject::Docker { .. } => &["docker| "],
            Subject::Serve { .. } => &["serve| ", "docker| "],
        }
    }

    /// The shell that knows `docker`.
    fn shell(&self, command: &str) -> Command {
        let program = match self {
            Subject::Hull { .. } => "hull",
            Subject::Docker { .. } | Subject::Serve { .. } => "command docker",
        };
        let mut shell = Command::new("sh");
        let line = format!("docker() {{ {program} \"$@\"; }}\n{{ {command}\n}} 2>&1");
        shell.arg("-c").arg(line);
        match self {
            Subject::Hull { root, isolation } => shell
                .env("HULL_ROOT", root)
                .env("HULL_ISOLATION", isolation),
            Subject::Docker { host } | Subject::Serve { host } => shell
                .env("DOCKER_HOST", host)
                .env("DOCKER_CLI_HINTS", "false"),
        };
        shell
    }

    /// What it has printed, without what Docker adds to every error.
    fn lines(&self, output: &str) -> Vec<String> {
        let mut lines: Vec<&str> = output.lines().map(str::trim_end).collect();
        if let Subject::Docker { .. } | Subject::Serve { .. } = self {
            lines.retain(|line| {
                let is_advice =
                    line.starts_with("Run 'docker ") || line.starts_with("See 'docker ");
                // Of its copy, which it gives up in one thread while it is written in another.
                let is_race = line.starts_with("time=") && line.contains("msg=\"Can't ");
                !is_advice && !is_race
            });
        }
        lines.retain(|line| !line.is_empty());
        lines.into_iter().map(spaced).collect()
    }
}

/// Types a transcript in this folder; fails with all commands that have not printed what they were to print.
pub(crate) fn play(subject: &Subject<'_>, transcript: &str, folder: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for step in parse(transcript, subject.prefixes())? {
        let (code, output) = run(subject.shell(&step.command).current_dir(folder), &step)?;
        let lines = subject.lines(&output);
        if code != Some(step.code) || !step.expects(&lines)? {
            wrong.push(format!(
                "line {}: $ {}\n--- expected, with code {}\n{}\n--- printed, with code {code:?}\n{}\n",
                step.line,
                step.command,
                step.code,
                step.expected.join("\n"),
                lines.join("\n")
            ));
        }
    }
    ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

fn run(command: &mut Command, step: &Step) -> Result<(Option<i32>, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut stdout = child.stdout.take().context("stdout is a pipe")?;
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).map(|_| output)
    });
    let code =
        wait(&mut child).with_context(|| format!("line {}: $ {}", step.line, step.command))?;
    let output = reader.join().expect("the reader does not panic")?;
    Ok((code, String::from_utf8_lossy(&output).into_owned()))
}

fn wait(child: &mut Child) -> Result<Option<i32>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() > deadline {
            child.kill()?;
            bail!("it has not ended within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Who lines may be of.
const ALL: [&str; 3] = ["hull| ", "docker| ", "serve| "];

fn parse(transcript: &str, own: &[&'static str]) -> Result<Vec<Step>> {
    // For each step, the first of its owners that has a line in it.
    let mut owners: Vec<Option<&'static str>> = Vec::new();
    for line in transcript.lines() {
        if line.starts_with("$ ") {
            owners.push(None);
        } else if let Some(owner) = owners.last_mut() {
            let rank = |prefix: &str| own.iter().position(|one| *one == prefix);
            let found = own.iter().copied().find(|prefix| line.starts_with(prefix));
            let is_better = |found: &str| owner.is_none_or(|known| rank(found) < rank(known));
            *owner = found.filter(|found| is_better(found)).or(*owner);
        }
    }
    let mut steps: Vec<Step> = Vec::new();
    for (index, line) in transcript.lines().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                line: index + 1,
                command: command.to_owned(),
                ..Step::default()
            });
            continue;
        }
        let owner = steps.len().checked_sub(1).and_then(|at| owners[at]);
        let step = steps
            .last_mut()
            .context("a transcript begins with a command")?;
        let line = match owner.and_then(|owner| line.strip_prefix(owner)) {
            Some(line) => line,
            None if ALL.iter().any(|prefix| line.starts_with(prefix)) => continue,
            None => line,
        };
        match line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(code) if code.parse::<i32>().is_ok() => step.code = code.parse()?,
            _ => step.expected.push(spaced(line)),
        }
    }
    Ok(steps)
}

/// The line with exactly three blanks where there are more: columns are as wide as what is in them.
fn spaced(line: &str) -> String {
    let mut spaced = String::new();
    let mut blanks = 0;
    for c in line.trim_end().chars() {
        blanks = if c == ' ' { blanks + 1 } else { 0 };
        if blanks <= 3 {
            spaced.push(c);
        }
    }
    spaced
}

fn pattern(expected: &str) -> Result<Regex> {
    const PLACES: [(&str, &str); 11] = [
        ("{id}", "[0-9a-f]{64}"),
        ("{short}", "[0-9a-f]{12}"),
        (
            "{ago}",
            "(?:Less than a second|About a minute|About an hour|[0-9]+ [a-z]+) ago",
        ),
        (
            "{for}",
            "(?:Less than a second|About a minute|[0-9]+ (?:second|minute)s?)",
        ),
        (
            "{time}",
            r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+(?:Z|[+-][0-9:]+)",
        ),
        (
            "{date}",
            r"20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4} [A-Z]+",
        ),
        ("{name}", "[a-z]+_[a-z]+"),
        ("{size}", "[0-9.]+[kKMGT]?i?B"),
        ("{n}", "[0-9]+"),
        ("{any}", ".*"),
        (
            "{error}",
            "(?:hull: |(?:docker: )?(?:Error response from daemon: |Error: )?)",
        ),
    ];
    let mut pattern = regex::escape(expected);
    for (place, meaning) in PLACES {
        pattern = pattern.replace(&regex::escape(place), meaning);
    }
    Regex::new(&format!("^{pattern}$")).with_context(|| format!("{expected:?} is no pattern"))
}

#[test]
fn a_transcript_is_what_is_typed_and_what_is_printed() {
    let text = "# c\n$ docker ps\nhull| A\ndocker| B\nC     D\n[3]\n$ true\n";
    let steps = parse(text, &["hull| "]).unwrap();
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0].expected, ["A", "C   D"]);
    assert_eq!((steps[0].code, steps[1].code), (3, 0));
    let matches = |expected, line| pattern(expected).unwrap().is_match(line);
    assert!(matches(
        "{short} (x) {ago}",
        "0123456789ab (x) 3 minutes ago"
    ));
    assert!(!matches("{short}", "0123456789abc"));
    assert!(matches(
        "{error}No",
        "docker: Error response from daemon: No"
    ));
}
