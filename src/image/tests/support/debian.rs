//! Debian's docker-registry on loopback, and images pushed to it by plain PUTs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::Digest;

use super::images::{OCI_MANIFEST, TestImage};

/// A running registry, ended when dropped.
pub(crate) struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one that keeps its blobs in `folder`; `None` if it is not installed.
    pub(crate) fn start(folder: &Path) -> Option<Registry> {
        Registry::start_with(folder, "")
    }

    /// One that lets in nobody but `user` with password `secret`.
    pub(crate) fn start_guarded(folder: &Path) -> Option<Registry> {
        let passwords = folder.join("htpasswd");
        let hash = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
        std::fs::write(&passwords, format!("user:{hash}\n")).unwrap();
        let auth = format!(
            "}}\nauth: {{htpasswd: {{realm: r, path: {}}}",
            passwords.display()
        );
        Registry::start_with(folder, &auth)
    }

    /// The same with more lines in the `http` section of its configuration.
    pub(crate) fn start_with(folder: &Path, http: &str) -> Option<Registry> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let config = folder.join("config.yml");
        let root = folder.join("blobs");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: '{host}', secret: x{http}}}\n",
                root.display()
            ),
        )
        .unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let registry = Registry { child, host };
        let started = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "docker-registry does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Pushes an image: distribution-spec 1.1, "Pushing".
    pub(crate) fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.blobs() {
            let (status, location) =
                self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
            assert_eq!(status, 202);
            let location = location.unwrap();
            let path = location
                .split_once("://")
                .map_or(location.as_str(), |(_, rest)| {
                    &rest[rest.find('/').unwrap()..]
                });
            let joint = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{joint}digest={}", Digest::of(&blob));
            assert_eq!(
                self.request("PUT", &path, "application/octet-stream", &blob)
                    .0,
                201
            );
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        assert_eq!(
            self.request("PUT", &path, OCI_MANIFEST, &image.manifest).0,
            201
        );
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, Option<String>) {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        let mut location = None;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            if name.eq_ignore_ascii_case("location") {
                location = Some(value.to_owned());
            }
        }
        reader.read_to_end(&mut Vec::new()).unwrap();
        (status.split(' ').nth(1).unwrap().parse().unwrap(), location)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
