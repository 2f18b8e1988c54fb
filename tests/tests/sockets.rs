//! Sockets of the host in containers: what is connected to in a VM is the host's server, and no other.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::Hull;

/// A server that gives everything back in reverse, once a client has said everything; and a store with an image of a client.
struct Served {
    hull: Hull,
    folder: TempDir,
}

impl Served {
    fn new() -> Result<Served> {
        let hull = Hull::new()?;
        hull.import_program(Path::new(env!("CARGO_BIN_EXE_caller")), "caller")?;
        let folder = tempfile::tempdir()?;
        serve(&folder.path().join("host.sock"))?;
        Ok(Served { hull, folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("host.sock")
    }

    fn call(&self, options: &[&str], what: &str) -> Result<String> {
        let volume = format!("{}:/in.sock", self.socket().display());
        let run = ["run", "--rm", "--network", "none", "-v", &volume];
        let words = run.into_iter().chain(options.iter().copied());
        let ran = self
            .hull
            .run(words.chain(["caller", "/caller", "/in.sock", what]))?;
        Ok(ran.expect_code(0).stdout())
    }
}

fn serve(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                if stream.read_to_end(&mut said).is_ok() {
                    said.reverse();
                    let _ = stream.write_all(&said);
                }
            });
        }
    });
    Ok(())
}

#[test]
fn a_server_of_the_host_answers_in_a_vm_and_natively() -> Result<()> {
    let served = Served::new()?;
    for options in [&[][..], &["--isolation", "native"]] {
        assert_eq!(served.call(options, "ask")?, "noitseuq", "{options:?}");
        assert_eq!(
            served.call(options, "pour")?,
            "8388608 bytes, reversed: true"
        );
    }
    assert_eq!(served.call(&[], "many")?, "200 answers");
    served.hull.expect_nothing_left()
}

#[test]
fn a_socket_looks_as_on_the_host_and_one_without_a_server_refuses() -> Result<()> {
    let served = Served::new()?;
    std::fs::set_permissions(served.socket(), PermissionsExt::from_mode(0o660))?;
    chown(served.socket(), Some(0), Some(1234))?;
    let volume = format!("{}:/run/in.sock", served.socket().display());
    let run = ["run", "-d", "--network", "none", "--name", "box", "-v"];
    let words = run.into_iter().chain([&*volume, "demo", "sleep", "1000"]);
    served.hull.run(words)?.expect_code(0);
    let stat = ["exec", "box", "stat", "-c", "%F %a %u %g", "/run/in.sock"];
    let stat = served.hull.run(stat)?.expect_code(0);
    assert_eq!(stat.stdout(), "socket 660 0 1234");
    // It is the one that was named, by its place: a server that comes again there is reached.
    served.hull.run(["rm", "-f", "box"])?.expect_code(0);
    std::fs::remove_file(served.socket())?;
    let gone = served
        .hull
        .run(["run", "--rm", "-v", &volume, "caller", "x"])?;
    // As for any path that is not there, a directory is made.
    ensure!(
        gone.code() != Some(0) && served.socket().is_dir(),
        "{gone:?}"
    );
    std::fs::remove_dir(served.socket())?;
    // A socket that nobody listens at any more.
    drop(UnixListener::bind(served.socket())?);
    ensure!(std::fs::metadata(served.socket())?.mode() & 0o170_000 == 0o140_000);
    let refused = served.call(&[], "ask")?;
    ensure!(
        ["ConnectionReset", "BrokenPipe", ""].contains(&&*refused),
        "{refused}"
    );
    serve_again(&served)?;
    assert_eq!(served.call(&[], "ask")?, "noitseuq");
    served.hull.expect_nothing_left()
}

fn serve_again(served: &Served) -> Result<()> {
    std::fs::remove_file(served.socket())?;
    serve(&served.socket())
}

#[test]
fn containers_of_a_pod_have_the_sockets_that_they_named() -> Result<()> {
    let served = Served::new()?;
    let hull = &served.hull;
    hull.run(["pod", "create", "box"])?.expect_code(0);
    let volume = format!("{}:/in.sock", served.socket().display());
    let start = |name: &str, options: &[&str]| -> Result<()> {
        let run = ["run", "-d", "--isolation", "pod:box", "--name", name];
        let words = run.into_iter().chain(options.iter().copied());
        hull.run(words.chain(["demo", "sleep", "1000"]))?
            .expect_code(0);
        Ok(())
    };
    start("with", &["-v", &volume])?;
    start("without", &[])?;
    let there = hull.run(["exec", "with", "test", "-S", "/in.sock"])?;
    assert_eq!(there.code(), Some(0));
    let absent = hull.run(["exec", "without", "ls", "/in.sock"])?;
    assert_eq!(absent.code(), Some(1));
    // Both of two that named it reach it.
    for name in ["one", "two"] {
        let run = [
            "run",
            "--rm",
            "--isolation",
            "pod:box",
            "--name",
            name,
            "-v",
        ];
        let words = run
            .into_iter()
            .chain([&*volume, "caller", "/caller", "/in.sock", "ask"]);
        assert_eq!(hull.run(words)?.expect_code(0).stdout(), "noitseuq");
    }
    // Whoever goes without a word holds nothing up.
    for _ in 0..3 {
        let run = ["run", "--rm", "--isolation", "pod:box", "-v", &volume];
        let words = run
            .into_iter()
            .chain(["caller", "/caller", "/in.sock", "slam"]);
        assert_eq!(hull.run(words)?.expect_code(0).stdout(), "slammed");
    }
    hull.run(["pod", "rm", "-f", "box"])?.expect_code(0);
    hull.expect_nothing_left()
}
