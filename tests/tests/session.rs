//! A session as somebody types it who knows Docker: transcripts (`session/*.session`), of which hull must print every
//! line. The same transcripts can be typed to Docker itself, which shows that what they expect is true:
//!
//! ```sh
//! HULL_SESSION_DOCKER=unix:///run/docker.sock cargo test -p tests --test session -- --ignored
//! ```
//!
//! (Docker must have the image `demo`, and no containers.) docs/docker.md says what differs, and why.

#[path = "session/script.rs"]
mod script;

use std::process::Command;

use anyhow::{Context, Result};
use script::{Subject, play};
use tests::Hull;
use tests::serve::Serve;

const LIVES: &str = include_str!("session/lives.session");
const RUNS: &str = include_str!("session/runs.session");
const FILES: &str = include_str!("session/files.session");
const IMAGES: &str = include_str!("session/images.session");
const MISTAKES: &str = include_str!("session/mistakes.session");
const VOLUMES: &str = include_str!("session/volumes.session");
const ANONYMOUS: &str = include_str!("session/anonymous.session");
const NETWORKS: &str = include_str!("session/networks.session");
const PODS: &str = include_str!("session/pods.session");

/// Types a transcript to hull, with containers of this isolation; nothing is left of them.
fn session(transcript: &str, isolation: &'static str) -> Result<()> {
    let hull = Hull::new()?;
    // The image is there, as it would be in a session.
    hull.run("create -q --network none --name first --isolation native demo true".split(' '))?
        .expect_code(0);
    hull.run(["rm", "first"])?.expect_code(0);
    let folder = tempfile::tempdir()?;
    let root = hull.root();
    play(
        &Subject::Hull { root, isolation },
        transcript,
        folder.path(),
    )?;
    hull.expect_nothing_left()
}

#[test]
fn native_containers_live_as_dockers_do() -> Result<()> {
    session(LIVES, "native")
}

#[test]
fn containers_in_vms_live_as_dockers_do() -> Result<()> {
    session(LIVES, "vm")
}

#[test]
fn native_containers_have_ports_and_networks_as_dockers_do() -> Result<()> {
    session(NETWORKS, "native")
}

#[test]
fn containers_in_vms_have_ports_and_networks_as_dockers_do() -> Result<()> {
    session(NETWORKS, "vm")
}

#[test]
fn native_runs_end_as_dockers_do() -> Result<()> {
    session(RUNS, "native")
}

#[test]
fn runs_in_vms_end_as_dockers_do() -> Result<()> {
    session(RUNS, "vm")
}

#[test]
fn files_are_copied_into_and_out_of_native_containers() -> Result<()> {
    session(FILES, "native")
}

#[test]
fn files_are_copied_into_and_out_of_vms() -> Result<()> {
    session(FILES, "vm")
}

#[test]
fn images_are_made_named_saved_and_removed_as_dockers_are() -> Result<()> {
    session(IMAGES, "native")
}

#[test]
fn mistakes_are_told_of_native_containers() -> Result<()> {
    session(MISTAKES, "native")
}

#[test]
fn mistakes_are_told_of_containers_in_vms() -> Result<()> {
    session(MISTAKES, "vm")
}

#[test]
fn volumes_and_directories_of_the_host_are_mounted_natively_as_dockers_are() -> Result<()> {
    session(VOLUMES, "native")
}

#[test]
fn volumes_and_directories_of_the_host_are_shared_with_vms_as_dockers_are() -> Result<()> {
    session(VOLUMES, "vm")
}

#[test]
fn volumes_without_a_name_go_with_their_containers() -> Result<()> {
    session(ANONYMOUS, "native")
}

#[test]
fn a_pod_s_containers_share_its_network_and_die_alone() -> Result<()> {
    session(PODS, "vm")
}

/// Types a transcript to Docker's command line, with hull's service in the place of Docker's.
fn docker_session(transcript: &str, isolation: &str) -> Result<()> {
    Command::new("docker")
        .arg("--version")
        .output()
        .context("Docker's command line is not on the PATH: resources/setup.sh installs it")?;
    let hull = Hull::new()?;
    hull.run("create -q --network none --name first --isolation native demo true".split(' '))?
        .expect_code(0);
    hull.run(["rm", "first"])?.expect_code(0);
    let folder = tempfile::tempdir()?;
    let serve = Serve::start(&hull, isolation)?;
    let host = serve.address();
    play(&Subject::Serve { host }, transcript, folder.path())?;
    serve.stop()?;
    hull.expect_nothing_left()
}

#[test]
fn docker_s_command_line_runs_native_containers() -> Result<()> {
    docker_session(LIVES, "native")?;
    docker_session(RUNS, "native")?;
    docker_session(FILES, "native")
}

#[test]
fn docker_s_command_line_has_images_volumes_and_networks() -> Result<()> {
    docker_session(IMAGES, "native")?;
    docker_session(VOLUMES, "native")?;
    docker_session(ANONYMOUS, "native")?;
    docker_session(NETWORKS, "native")
}

#[test]
fn docker_s_command_line_is_told_of_mistakes() -> Result<()> {
    docker_session(MISTAKES, "native")
}

#[test]
fn docker_s_command_line_runs_containers_in_vms() -> Result<()> {
    docker_session(LIVES, "vm")?;
    docker_session(RUNS, "vm")
}

#[test]
#[ignore = "a check of the transcripts: needs Docker, whose address HULL_SESSION_DOCKER is"]
fn docker_prints_what_the_transcripts_expect() -> Result<()> {
    let host = std::env::var("HULL_SESSION_DOCKER").context("HULL_SESSION_DOCKER is not set")?;
    for transcript in [LIVES, RUNS, FILES, MISTAKES, IMAGES, VOLUMES, ANONYMOUS] {
        let folder = tempfile::tempdir()?;
        let host = host.clone();
        play(&Subject::Docker { host }, transcript, folder.path())?;
    }
    Ok(())
}
