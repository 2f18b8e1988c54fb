use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Harness {
    #[command(flatten)]
    run: RunArgs,
}

fn options(words: &[&str]) -> anyhow::Result<Options> {
    let words = std::iter::once("run").chain(words.iter().copied());
    Harness::try_parse_from(words)?.run.options()
}

#[test]
fn what_follows_the_image_is_the_command_s() {
    let options = options(&[
        "-i", "-e", "A=1", "demo", "sh", "-c", "echo -i", "-t", "--rm",
    ])
    .unwrap();
    assert_eq!(options.image, "demo");
    assert_eq!(options.command, ["sh", "-c", "echo -i", "-t", "--rm"]);
    assert!(options.interactive && !options.terminal);
}

#[test]
fn short_options_go_together() {
    let options = options(&["-it", "-m", "64m", "-uroot", "-w/tmp", "-hweb", "demo"]).unwrap();
    assert!(options.interactive && options.terminal);
    assert_eq!(options.memory_bytes, Some(64 << 20));
    assert_eq!(options.hostname.as_deref(), Some("web"));
}

#[test]
fn a_double_dash_before_the_command_is_the_command_s_own() {
    assert_eq!(
        options(&["demo", "env", "--", "x"]).unwrap().command,
        ["env", "--", "x"]
    );
}

#[test]
fn what_is_not_built_is_named() {
    for (words, name) in [
        (&["-d", "demo"][..], "--detach"),
        (&["-p", "80:80", "demo"], "--publish"),
        (&["-v", "/a:/b", "demo"], "--volume"),
        (&["--device=/dev/fuse", "demo"], "--device"),
        (&["--restart=always", "demo"], "--restart"),
        (&["--runtime", "x", "demo"], "--runtime"),
    ] {
        let message = options(words).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{name} is not built yet")),
            "{message}"
        );
    }
}

#[test]
fn timing_takes_a_format_only_with_an_equals_sign() {
    let words = Harness::try_parse_from(["run", "--timing", "demo", "json"]).unwrap();
    assert_eq!(words.run.timing(), Some(TimingFormat::Text));
    assert_eq!(words.run.image, "demo");
    let words = Harness::try_parse_from(["run", "--timing=json", "demo"]).unwrap();
    assert_eq!(words.run.timing(), Some(TimingFormat::Json));
}

#[test]
fn files_come_before_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("env");
    std::fs::write(&file, "A=file\nB=file\n").unwrap();
    let options = options(&["-e", "A=mine", "--env-file", file.to_str().unwrap(), "demo"]).unwrap();
    let expected = [("A", "file"), ("B", "file"), ("A", "mine")]
        .map(|(name, value)| Variable::Set(name.into(), value.into()));
    assert_eq!(options.env, expected);
}

#[test]
fn a_way_to_begin_is_one_of_two() {
    assert_eq!(options(&["demo"]).unwrap().boot, None);
    let named = options(&["--boot", "kernel", "demo"]).unwrap();
    assert_eq!(named.boot, Some(Boot::Kernel));
    assert!(options(&["--boot", "image", "demo"]).is_err());
}

#[test]
fn no_image_is_an_error() {
    assert!(options(&["-i"]).is_err());
}
