//! Docker's API, request by request: faults that other servers had (each test is named after its item in the list that was made
//! of them), and clients that mean harm. The transcripts of `session.rs` are typed to Docker's command line on top.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::serve::Serve;
use tests::{Hull, wait_until};

fn served() -> Result<(Hull, Serve)> {
    let hull = Hull::new()?;
    let serve = Serve::start(&hull, "native")?;
    Ok((hull, serve))
}

/// A container's identifier.
fn created(serve: &Serve, name: &str, body: Value) -> Result<String> {
    let mut all = json!({"Image": "demo", "HostConfig": {"NetworkMode": "none"}});
    for (key, value) in body.as_object().context("a body is an object")? {
        all[key] = value.clone();
    }
    let response = serve.ask(
        "POST",
        &format!("/containers/create?name={name}"),
        &all.to_string(),
    )?;
    ensure!(response.status == 201, "{response:?}");
    let document: Value = serde_json::from_str(&response.body)?;
    Ok(document["Id"].as_str().context("an identifier")?.to_owned())
}

fn threads(serve: &Serve) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/task", serve.pid()))?.count())
}

#[test]
fn b2_02_a_wait_for_a_created_container_ends_with_its_code() -> Result<()> {
    let (_hull, serve) = served()?;
    for (condition, auto_remove) in [("next-exit", false), ("removed", true)] {
        let host = json!({"NetworkMode": "none", "AutoRemove": auto_remove});
        let id = created(
            &serve,
            "waited",
            json!({"Cmd": ["sh", "-c", "exit 7"], "HostConfig": host}),
        )?;
        let mut wait = serve.connect()?;
        write!(
            wait,
            "POST /containers/{id}/wait?condition={condition} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        // The headers come before the end.
        let mut head = [0; 15];
        wait.read_exact(&mut head)?;
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        assert_eq!(
            serve
                .ask("POST", &format!("/containers/{id}/start"), "")?
                .status,
            204
        );
        let mut rest = String::new();
        wait.read_to_string(&mut rest)?;
        assert!(rest.contains(r#"{"StatusCode":7}"#), "{rest}");
        let there = serve
            .ask("GET", &format!("/containers/{id}/json"), "")?
            .status;
        assert_eq!(there, if auto_remove { 404 } else { 200 });
        serve.ask("DELETE", &format!("/containers/{id}"), "")?;
    }
    serve.stop()
}

#[test]
fn b2_03_a_client_that_attaches_before_the_start_misses_nothing() -> Result<()> {
    let (_hull, serve) = served()?;
    let id = created(
        &serve,
        "attached",
        json!({"Cmd": ["sh", "-c", "echo out; cat; echo err >&2"],
        "OpenStdin": true, "StdinOnce": true}),
    )?;
    let mut attach = serve.connect()?;
    write!(
        attach,
        "POST /containers/{id}/attach?stdin=1&stdout=1&stderr=1&stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\n\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        attach.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    assert_eq!(
        serve
            .ask("POST", &format!("/containers/{id}/start"), "")?
            .status,
        204
    );
    attach.write_all(b"in\n")?;
    // B.2, 4: half of the connection is closed, and the other half goes on.
    attach.shutdown(std::net::Shutdown::Write)?;
    let mut all = Vec::new();
    attach.read_to_end(&mut all)?;
    let frame = |stream: u8, text: &str| {
        [
            &[stream, 0, 0, 0, 0, 0, 0, text.len() as u8],
            text.as_bytes(),
        ]
        .concat()
    };
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(all.starts_with(&frame(1, "out\n")), "{text:?}");
    for part in [frame(1, "in\n"), frame(2, "err\n")] {
        assert!(
            all.windows(part.len()).any(|window| window == part),
            "{text:?}"
        );
    }
    Ok(())
}

#[test]
fn b2_05_an_exec_s_code_is_known_when_its_stream_ends() -> Result<()> {
    let (_hull, serve) = served()?;
    let id = created(&serve, "execs", json!({"Cmd": ["sleep", "1000"]}))?;
    serve.ask("POST", &format!("/containers/{id}/start"), "")?;
    let refused = serve.ask("POST", &format!("/containers/{id}/exec"), "{}")?;
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (400, r#"{"message":"No exec command specified"}"#)
    );
    for (command, code) in [
        (json!(["sh", "-c", "exit 9"]), 9),
        (json!(["/nosuch"]), 127),
    ] {
        let body = json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true}).to_string();
        let made: Value = serde_json::from_str(
            &serve
                .ask("POST", &format!("/containers/{id}/exec"), &body)?
                .body,
        )?;
        let exec = made["Id"].as_str().context("an identifier")?.to_owned();
        let started = serve.ask(
            "POST",
            &format!("/exec/{exec}/start"),
            r#"{"Detach": false}"#,
        )?;
        assert_eq!(started.status, 200);
        let inspected: Value =
            serde_json::from_str(&serve.ask("GET", &format!("/exec/{exec}/json"), "")?.body)?;
        assert_eq!(inspected["ExitCode"], code, "{inspected}");
        assert_eq!(inspected["Running"], false);
        assert_eq!(
            serve
                .ask("POST", &format!("/exec/{exec}/start"), "{}")?
                .status,
            409
        );
    }
    Ok(())
}

#[test]
fn b2_07_a_follower_of_an_exited_container_ends_and_one_stream_must_be_asked_for() -> Result<()> {
    let (_hull, serve) = served()?;
    let id = created(&serve, "logged", json!({"Cmd": ["echo", "a"]}))?;
    serve.ask("POST", &format!("/containers/{id}/start"), "")?;
    serve.ask("POST", &format!("/containers/{id}/wait"), "")?;
    let logs = serve.ask(
        "GET",
        &format!("/containers/{id}/logs?stdout=1&follow=1"),
        "",
    )?;
    assert!(logs.body.contains("\u{1}\0\0\0\0\0\0\u{2}a\n"), "{logs:?}");
    assert_eq!(
        serve
            .ask("GET", &format!("/containers/{id}/logs"), "")?
            .status,
        400
    );
    Ok(())
}

#[test]
fn b2_10_statuses_are_dockers() -> Result<()> {
    let (_hull, serve) = served()?;
    let missing = serve.ask("POST", "/containers/create", r#"{"Image": "nosuch"}"#)?;
    assert_eq!(missing.status, 404);
    assert!(
        missing.body.contains("No such image: nosuch"),
        "{missing:?}"
    );
    let id = created(&serve, "statuses", json!({"Cmd": ["sleep", "1000"]}))?;
    let status =
        |method: &str, path: String| -> Result<u16> { Ok(serve.ask(method, &path, "")?.status) };
    let taken = serve.ask(
        "POST",
        "/containers/create?name=statuses",
        r#"{"Image": "demo"}"#,
    )?;
    assert_eq!(taken.status, 409);
    assert_eq!(status("POST", format!("/containers/{id}/stop"))?, 304);
    assert_eq!(status("POST", format!("/containers/{id}/start"))?, 204);
    assert_eq!(status("POST", format!("/containers/{id}/start"))?, 304);
    assert_eq!(status("DELETE", format!("/containers/{id}"))?, 409);
    assert_eq!(status("POST", format!("/containers/{id}/stop?t=0"))?, 204);
    assert_eq!(status("DELETE", format!("/containers/{id}"))?, 204);
    assert_eq!(status("GET", "/containers/nope/json".into())?, 404);
    assert_eq!(status("GET", "/networks/nope".into())?, 404);
    assert_eq!(status("DELETE", "/volumes/nope".into())?, 404);
    assert_eq!(status("DELETE", "/volumes/nope?force=1".into())?, 204);
    assert_eq!(status("POST", "/build".into())?, 501);
    assert_eq!(status("GET", "/swarm".into())?, 503);
    Ok(())
}

#[test]
fn b2_15_lists_are_lists_and_b2_16_filters_that_are_none_prune_nothing() -> Result<()> {
    let (_hull, serve) = served()?;
    for path in ["/containers/json", "/images/json"] {
        assert_eq!(serve.ask("GET", path, "")?.body, "[]", "{path}");
    }
    created(&serve, "kept", json!({"Cmd": ["true"]}))?;
    for filters in [
        "x",
        "%7B%22nope%22%3A%5B%22x%22%5D%7D",
        "%7B%22label%22%3A1%7D",
    ] {
        let pruned = serve.ask("POST", &format!("/containers/prune?filters={filters}"), "")?;
        assert_eq!(pruned.status, 400, "{pruned:?}");
        assert_eq!(
            serve
                .ask("POST", &format!("/images/prune?filters={filters}"), "")?
                .status,
            400
        );
        assert_eq!(
            serve
                .ask("POST", &format!("/volumes/prune?filters={filters}"), "")?
                .status,
            400
        );
    }
    let listed: Value =
        serde_json::from_str(&serve.ask("GET", "/containers/json?all=1", "")?.body)?;
    assert_eq!(listed.as_array().context("a list")?.len(), 1);
    Ok(())
}

#[test]
fn clients_that_mean_harm_are_refused_and_those_that_vanish_leave_nothing() -> Result<()> {
    let (_hull, serve) = served()?;
    let id = created(&serve, "calm", json!({"Cmd": ["sleep", "1000"]}))?;
    serve.ask("POST", &format!("/containers/{id}/start"), "")?;
    let long = format!("{{\"Image\": \"{}\"}}", "a".repeat(17 << 20));
    assert_eq!(serve.ask("POST", "/containers/create", &long)?.status, 413);
    let deep = "{\"Labels\":".repeat(100_000);
    assert_eq!(serve.ask("POST", "/containers/create", &deep)?.status, 400);
    let broken = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(serve.raw(broken)?.status, 400);
    assert_eq!(serve.ask("GET", "/v1.99/info", "")?.status, 400);
    serve.ask("GET", "/_ping", "")?;
    let before = threads(&serve)?;
    let mut open = Vec::new();
    for path in [
        "logs?stdout=1&follow=1",
        "stats",
        "attach?stream=1&stdout=1",
        "wait",
    ] {
        let method = if path.starts_with("attach") || path == "wait" {
            "POST"
        } else {
            "GET"
        };
        let upgrade = if path.starts_with("attach") {
            "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        } else {
            ""
        };
        let mut stream = serve.connect()?;
        write!(
            stream,
            "{method} /containers/{id}/{path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n"
        )?;
        stream.read_exact(&mut [0; 12])?;
        open.push(stream);
    }
    let mut events = serve.connect()?;
    events.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")?;
    events.read_exact(&mut [0; 12])?;
    open.push(events);
    assert!(threads(&serve)? > before);
    drop(open);
    // Threads that carry calls out may stay for a while; those of clients do not.
    wait_until("the clients' threads have ended", || {
        Ok(threads(&serve)? <= before + 2)
    })
}

#[test]
fn containers_never_notice_that_the_service_is_killed() -> Result<()> {
    let (hull, serve) = served()?;
    let id = created(&serve, "lasting", json!({"Cmd": ["sleep", "1000"]}))?;
    serve.ask("POST", &format!("/containers/{id}/start"), "")?;
    std::process::Command::new("kill")
        .args(["-9", &serve.pid().to_string()])
        .status()?;
    drop(serve);
    let serve = Serve::start(&hull, "native")?;
    let inspected: Value = serde_json::from_str(
        &serve
            .ask("GET", &format!("/containers/{id}/json"), "")?
            .body,
    )?;
    assert_eq!(inspected["State"]["Running"], true);
    serve.stop()
}
