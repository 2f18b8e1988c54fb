//! `hull serve` for tests: Docker's API at a socket, with native containers or with VMs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Hull, wait_until};

/// How long the service may take to listen in a busy emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service, ended when it is dropped.
pub struct Serve {
    child: Child,
    socket: PathBuf,
}

/// What was answered.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Head, in lower case.
    pub head: String,
    /// The rest, as it came.
    pub body: String,
}

impl Serve {
    /// Serves a store's containers, which are isolated so unless they ask for something else.
    pub fn start(hull: &Hull, isolation: &str) -> Result<Serve> {
        let socket = hull.root().join("api.sock");
        let address = format!("unix://{}", socket.display());
        let child = hull
            .command(["serve", "-H", &address, "--isolation", isolation])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run hull: is it on the PATH?")?;
        let serve = Serve { child, socket };
        wait_until("hull serve listens", || {
            Ok(UnixStream::connect(&serve.socket).is_ok())
        })?;
        Ok(serve)
    }

    /// As DOCKER_HOST takes it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The service's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection.
    pub fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends a request as it is, and reads all that comes until the connection is closed.
    pub fn raw(&self, request: &[u8]) -> Result<Response> {
        let mut stream = self.connect()?;
        // One that is refused early may be closed before it is read whole.
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Response {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        })
    }

    /// A request with a document, or without one.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<Response> {
        let len = body.len();
        self.raw(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: hull\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: {len}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    }

    /// Ends it with SIGTERM.
    pub fn stop(mut self) -> Result<()> {
        self.terminate()?;
        ensure!(!self.socket.exists(), "the socket is left");
        Ok(())
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            let pid = self.child.id().to_string();
            std::process::Command::new("kill").arg(pid).status()?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "hull serve: {status}");
        Ok(())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // A test that has failed already is not to fail twice.
        let _ = self.terminate();
    }
}
