//! Real images with real software in them: a Debian root file system, and redis and nginx pulled from a registry.
//!
//! tests/images/build.sh made the images; HULL_TEST_IMAGES names another folder than the cache.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tests::{Hull, images};

/// A process that ends with its guard.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM, so that hull takes its VM down; the wait ends when it has.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Debian's docker-registry on loopback, holding the images.
struct Registry {
    address: String,
    _process: Running,
    _storage: TempDir,
}

impl Registry {
    fn start(layout: &Path) -> Result<Registry> {
        let storage = tempfile::tempdir()?;
        let config = storage.path().join("config.yml");
        // Port 0 is not reported by this registry: take a free one first.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let address = format!("127.0.0.1:{port}");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}}}\n",
                storage.path().display()
            ),
        )?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run docker-registry")?;
        let log = BufReader::new(child.stderr.take().context("stderr is a pipe")?);
        let process = Running(child);
        let mut lines = log.lines();
        lines
            .find(|line| {
                line.as_ref()
                    .is_ok_and(|line| line.contains("listening on"))
            })
            .context("docker-registry ended before it listened")??;
        std::thread::spawn(move || lines.for_each(drop));
        for tag in ["debian", "redis", "nginx"] {
            let status = Command::new("skopeo")
                .args(["copy", "--quiet", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:{tag}", layout.display()))
                .arg(format!("docker://{address}/{tag}"))
                .status()
                .context("cannot run skopeo")?;
            ensure!(status.success(), "skopeo could not push {tag}");
        }
        Ok(Registry {
            address,
            _process: process,
            _storage: storage,
        })
    }
}

/// Runs a server in a container on the bridge; its address is the first line that it prints.
fn serve(hull: &Hull, image: &str, command: &str) -> Result<(Running, String)> {
    let script = format!("hostname -I; exec {command}");
    let mut child = hull
        .command([
            "run",
            "--rm",
            "--network",
            "bridge",
            image,
            "sh",
            "-c",
            &script,
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
    let running = Running(child);
    let address = lines.next().context("the container printed no address")??;
    std::thread::spawn(move || lines.for_each(drop));
    Ok((running, address.trim().to_string()))
}

/// Runs a client until the server answers: it has no way to say when it listens.
fn ask(program: &str, arguments: &[&str]) -> Result<String> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let output = Command::new(program).args(arguments).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn an_imported_debian_runs_its_tools() -> Result<()> {
    let hull = Hull::new()?;
    let tar = images()?.join("debian.tar");
    hull.run(["import", tar.to_str().context("a plain path")?, "debian"])?
        .expect_code(0);
    let outcome = hull
        .run(["run", "--rm", "debian", "sh", "-c", "apt-get --version | head -1; perl -e 'print 6*7, \"\\n\"'; bash -c 'echo $BASH_VERSION'"])?
        .expect_code(0);
    let lines: Vec<_> = outcome.stdout().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("apt 2.6"), "{lines:?}");
    assert_eq!(lines[1], "42");
    assert!(lines[2].starts_with("5.2"), "{lines:?}");

    // bash on a terminal: its line editor, its history and its job control.
    let mut terminal =
        hull.on_terminal(["run", "--rm", "-it", "--network", "none", "debian", "bash"])?;
    terminal.expect("# ")?;
    terminal.type_in("echo $((6*8))\x7f\x7f\x7f7))\r")?;
    terminal.expect("42")?;
    terminal.type_in("\x1b[A\r")?;
    terminal.expect("42")?;
    terminal.type_in("sleep 1000\r")?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    terminal.type_in("\x1a")?;
    terminal.expect("Stopped")?;
    terminal.type_in("fg\r")?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    terminal.type_in("\x03")?;
    terminal.expect("# ")?;
    terminal.type_in("exit 7\r")?;
    assert_eq!(terminal.end()?.0, Some(7));
    hull.expect_nothing_left()
}

#[test]
fn servers_pulled_from_a_registry_answer_over_the_bridge() -> Result<()> {
    let hull = Hull::new()?;
    let registry = Registry::start(&images()?.join("layout"))?;
    let redis = format!("{}/redis", registry.address);
    let nginx = format!("{}/nginx", registry.address);
    hull.run(["pull", &redis])?.expect_code(0);
    hull.run(["pull", &nginx])?.expect_code(0);

    let (_redis, address) = serve(
        &hull,
        &redis,
        "redis-server --bind 0.0.0.0 --protected-mode no --save ''",
    )?;
    assert_eq!(ask("redis-cli", &["-h", &address, "ping"])?.trim(), "PONG");
    let benchmark = ask(
        "redis-benchmark",
        &[
            "-h", &address, "-q", "-n", "2000", "-c", "10", "-t", "set,get",
        ],
    )?;
    assert!(benchmark.contains("GET: "), "{benchmark}");
    println!("{benchmark}");

    let (_nginx, address) = serve(&hull, &nginx, "nginx -g 'daemon off;'")?;
    let page = ask(
        "curl",
        &["-sS", "--max-time", "20", &format!("http://{address}/")],
    )?;
    assert!(page.contains("Welcome to nginx"), "{page}");
    Ok(())
}
