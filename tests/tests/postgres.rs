//! A database under a restart policy: whatever of hull's is killed, it comes back or its end is reported, and no row that
//! was committed is lost. Its files are in the container's writable layer.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{Hull, images, wait_until};

const PSQL: &str =
    "exec -i -u postgres db /usr/lib/postgresql/15/bin/psql -h /tmp -qtA -v ON_ERROR_STOP=1";
/// Rows that are committed before each kill.
const ROWS: usize = 10;

/// Copies one image of a layout of several to a layout of its own, which has the folder of blobs.
fn only(layout: &Path, tag: &str, to: &Path) -> Result<()> {
    let read =
        |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    let mut index = read(&layout.join("index.json"))?;
    let manifests = index["manifests"].as_array_mut().context("an index")?;
    manifests.retain(|one| one["annotations"]["org.opencontainers.image.ref.name"] == tag);
    ensure!(manifests.len() == 1, "{tag} is not in {}", layout.display());
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        Path::new("blobs").join(digest.replace(':', "/"))
    };
    let manifest = blob(&manifests[0]);
    let parts = read(&layout.join(&manifest))?;
    let layers = parts["layers"].as_array().context("a manifest")?;
    let mut files = vec![
        PathBuf::from("oci-layout"),
        manifest,
        blob(&parts["config"]),
    ];
    files.extend(layers.iter().map(blob));
    for file in files {
        std::fs::copy(layout.join(&file), to.join(&file))?;
    }
    Ok(std::fs::write(to.join("index.json"), index.to_string())?)
}

/// What a statement gives, once the server takes it.
fn ask(hull: &Hull, statement: &str) -> Result<String> {
    let mut answer = String::new();
    wait_until("the database answers", || {
        let words = PSQL.split(' ').chain(["-c", statement]);
        let asked = hull.run(words)?;
        answer = asked.stdout();
        Ok(asked.code() == Some(0))
    })?;
    Ok(answer)
}

/// Commits rows one by one until `victim` is killed in the midst of it; the last row whose commit was acknowledged.
fn commit_until_killed(hull: &Hull, victim: Pid) -> Result<usize> {
    // A commit that was under way at a kill may be there without having been acknowledged.
    let from: usize = ask(hull, "SELECT coalesce(max(row), 0) + 1 FROM kept")?.parse()?;
    let mut psql = hull
        .command(PSQL.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = psql.stdin.take().context("stdin is a pipe")?;
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        // The pipe breaks when the database is gone.
        for row in from..from + 100_000 {
            if writeln!(input, "INSERT INTO kept VALUES ({row}) RETURNING row;").is_err() {
                break;
            }
        }
    });
    let mut last = None;
    for line in BufReader::new(psql.stdout.take().context("stdout is a pipe")?).lines() {
        // The last line may be half a number.
        let Ok(row) = line?.parse::<usize>() else {
            break;
        };
        if row == from + ROWS {
            kill_process(victim, Signal::KILL)?;
        }
        last = last.max(Some(row));
    }
    psql.wait()?;
    writer.join().expect("the writer does not panic");
    let last = last.context("no row was committed")?;
    ensure!(last >= from + ROWS, "only row {last} was committed");
    Ok(last)
}

/// Every row up to this one is there, once.
fn expect_rows(hull: &Hull, last: usize) -> Result<()> {
    let counted = ask(
        hull,
        &format!("SELECT count(*), count(DISTINCT row) FROM kept WHERE row <= {last}"),
    )?;
    assert_eq!(counted, format!("{last}|{last}"));
    Ok(())
}

#[test]
fn no_committed_row_is_lost_whatever_is_killed() -> Result<()> {
    let hull = Hull::new()?;
    let layout = tempfile::tempdir()?;
    std::fs::create_dir_all(layout.path().join("blobs/sha256"))?;
    only(&images()?.join("layout"), "postgres", layout.path())?;
    let folder = layout.path().to_str().context("a plain path")?;
    hull.run(["import", folder, "postgres"])?.expect_code(0);
    let run = "run -d --network none --name db --restart always -m 512m -u postgres postgres";
    hull.run(run.split(' '))?.expect_code(0);
    ask(&hull, "CREATE TABLE kept (row int PRIMARY KEY)")?;

    let inspect = |format: &str| -> Result<String> {
        let inspected = hull.run(["inspect", "-f", format, "db"])?.expect_code(0);
        Ok(inspected.stdout())
    };
    for (restarts, victim) in ["hull-vmm", "speaker"].into_iter().enumerate() {
        let pid = match victim {
            "speaker" => hull.warden_and_speaker()?[1],
            program => hull.process(program)?,
        };
        let last = commit_until_killed(&hull, pid)?;
        wait_until("it is started again", || {
            Ok(inspect("{{.RestartCount}} {{.State.Status}}")?
                == format!("{} running", restarts + 1))
        })?;
        expect_rows(&hull, last)?;
    }
    // Without its warden nothing starts it again: its end is reported, and a start brings it back.
    let last = commit_until_killed(&hull, hull.warden_and_speaker()?[0])?;
    assert_eq!(hull.run(["wait", "db"])?.expect_code(0).stdout(), "255");
    ensure!(inspect("{{.State.Error}}")?.contains("its monitor was killed"));
    hull.run(["start", "db"])?.expect_code(0);
    expect_rows(&hull, last)?;
    hull.run(["rm", "-f", "db"])?.expect_code(0);
    hull.expect_nothing_left()
}
