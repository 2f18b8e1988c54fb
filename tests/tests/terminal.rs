//! `-t`: a real terminal, which follows the user's in size and end.

use anyhow::Result;
use tests::Hull;

#[test]
fn a_shell_on_a_terminal_echoes_edits_and_follows_its_size() -> Result<()> {
    let hull = Hull::new()?;
    hull.run(["run", "--rm", "--network", "none", "demo", "true"])?
        .expect_code(0);
    let mut terminal =
        hull.on_terminal(["run", "--rm", "-it", "--network", "none", "demo", "sh"])?;
    terminal.expect("# ")?;
    terminal.type_in("tty; stty size; echo $TERM\r")?;
    terminal.expect("/dev/pts/0")?;
    terminal.expect("24 80")?;
    terminal.expect("xterm")?;
    terminal.resize(33, 99)?;
    terminal.type_in("sleep 1; stty size\r")?;
    terminal.expect("33 99")?;
    // Ctrl-C goes to the terminal's foreground process, not to hull.
    terminal.type_in("sleep 1000\r")?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    terminal.type_in("\x03")?;
    terminal.expect("# ")?;
    terminal.type_in("exit 9\r")?;
    let (code, _) = terminal.end()?;
    assert_eq!(code, Some(9));
    hull.expect_nothing_left()
}

#[test]
fn a_terminal_that_is_closed_ends_its_container() -> Result<()> {
    let hull = Hull::new()?;
    let mut terminal = hull.on_terminal([
        "run",
        "--rm",
        "-it",
        "--network",
        "none",
        "demo",
        "sh",
        "-c",
        "trap '' HUP; echo ready; cat",
    ])?;
    terminal.expect("ready")?;
    let mut child = terminal.close();
    assert_eq!(child.wait()?.code(), Some(128 + 1));
    hull.expect_nothing_left()
}

#[test]
fn without_a_terminal_t_is_refused_as_docker_does() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run(["run", "--rm", "-it", "demo", "sh"])?
        .expect_code(125);
    assert_eq!(outcome.stderr(), "hull: the input device is not a TTY");
    Ok(())
}

#[test]
fn top_shows_what_a_vm_takes_of_the_host_until_q_is_pressed() -> Result<()> {
    let hull = Hull::new()?;
    let web = [
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "web",
        "demo",
        "sleep",
        "1000",
    ];
    hull.run(web)?.expect_code(0);
    let mut terminal = hull.on_terminal(["top"])?;
    terminal.expect("sandbox,")?;
    terminal.expect("web")?;
    // Of a sandbox that was not asked to measure itself, too.
    terminal.expect("monitor")?;
    terminal.type_in("js")?;
    terminal.expect("▼")?;
    terminal.type_in("q")?;
    assert_eq!(terminal.end()?.0, Some(0));
    let refused = hull.run(["top"])?.expect_code(1);
    assert!(
        refused.stderr().contains("hull stats --no-stream"),
        "{}",
        refused.stderr()
    );
    hull.run(["rm", "-f", "web"])?.expect_code(0);
    hull.expect_nothing_left()
}
