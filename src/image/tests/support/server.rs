//! A registry for tests: correct by default; a test can change any answer.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::Digest;

use super::images::{OCI_MANIFEST, TestImage};

/// A request, as far as tests need it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    pub(crate) bytes: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Break the connection off after this many bytes of the body.
    pub(crate) cut_after: Option<usize>,
    /// Pause for this long after half the body.
    pub(crate) stall: Option<Duration>,
    /// Pause between the chunks of this many bytes.
    pub(crate) drip: Option<(usize, Duration)>,
    /// State this length instead of the true one.
    pub(crate) claim: Option<usize>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            body: body.into(),
            ..Reply::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request, Reply) -> Reply + Send + Sync;

/// Media types and bytes by path.
type Contents = HashMap<String, (String, Vec<u8>)>;

/// A running server. It ends with the test's process.
pub(crate) struct Server {
    address: SocketAddr,
    contents: Arc<Mutex<Contents>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// A correct registry.
    pub(crate) fn honest() -> Server {
        Server::start(|_, reply| reply)
    }

    /// A registry; `change` may replace its answers.
    pub(crate) fn start(
        change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            contents: Arc::default(),
            requests: Arc::default(),
        };
        let (contents, requests) = (server.contents.clone(), server.requests.clone());
        let change: Arc<Handler> = Arc::new(change);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (contents, requests, change) =
                    (contents.clone(), requests.clone(), change.clone());
                std::thread::spawn(move || {
                    // The client may close the connection at any time.
                    let _gone = serve(stream.unwrap(), |request| {
                        requests.lock().unwrap().push(request.clone());
                        let right = answer(&mut contents.lock().unwrap(), request);
                        change(request, right)
                    });
                });
            }
        });
        server
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Serves an image as `repository:tag`, and by its digest.
    pub(crate) fn put_image(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.blobs() {
            self.put(
                &format!("/v2/{repository}/blobs/{}", Digest::of(&blob)),
                "",
                blob,
            );
        }
        self.put_manifest(repository, tag, OCI_MANIFEST, &image.manifest);
    }

    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        for name in [tag.to_owned(), Digest::of(bytes).to_string()] {
            self.put(
                &format!("/v2/{repository}/manifests/{name}"),
                media_type,
                bytes.to_vec(),
            );
        }
    }

    pub(crate) fn put(&self, path: &str, media_type: &str, bytes: Vec<u8>) {
        self.contents
            .lock()
            .unwrap()
            .insert(path.to_owned(), (media_type.to_owned(), bytes));
    }

    /// The requests so far whose path contains this.
    pub(crate) fn requests(&self, part: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.path.contains(part))
            .cloned()
            .collect()
    }
}

fn answer(contents: &mut Contents, request: &Request) -> Reply {
    if request.path == "/v2/" {
        return Reply::new(200, "{}");
    }
    if let "POST" | "PUT" | "PATCH" = request.method.as_str() {
        return take(contents, request);
    }
    let path = request.path.split('?').next().unwrap();
    let Some((media_type, bytes)) = contents.get(path) else {
        return Reply::new(404, "{}");
    };
    let from = request.header("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let mut reply = match from {
        Some(from) if from < bytes.len() => Reply::new(206, &bytes[from..]).with(
            "Content-Range",
            format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
        Some(_) => return Reply::new(416, ""),
        None => Reply::new(200, bytes.clone()),
    };
    if !media_type.is_empty() {
        reply = reply.with("Content-Type", media_type);
    }
    reply
}

/// Takes what is pushed. A session is a blob in the making under its path.
fn take(contents: &mut Contents, request: &Request) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let kind = request
        .header("content-type")
        .unwrap_or_default()
        .to_owned();
    let key = path.to_owned();
    match request.method.as_str() {
        "POST" => Reply::new(202, "").with("Location", format!("{path}{}?state=a", contents.len())),
        "PATCH" => {
            let session = contents.entry(key).or_default();
            let first = request.header("content-range").unwrap();
            if first.split('-').next().unwrap() != session.1.len().to_string() {
                return Reply::new(416, "");
            }
            session.1.extend(&request.bytes);
            Reply::new(202, "").with("Location", format!("{path}?state=b"))
        }
        _ if path.contains("/manifests/") => {
            let digest = Digest::of(&request.bytes);
            let (repository, _) = path.rsplit_once('/').unwrap();
            for key in [key.clone(), format!("{repository}/{digest}")] {
                contents.insert(key, (kind.clone(), request.bytes.clone()));
            }
            Reply::new(201, "").with("Docker-Content-Digest", digest.to_string())
        }
        _ => {
            let mut blob = contents.remove(path).unwrap_or_default().1;
            blob.extend(&request.bytes);
            let digest = Digest::of(&blob);
            let stated = format!("digest={digest}").replace(':', "%3A");
            if !query.contains(&stated) || !query.starts_with("state=") {
                return Reply::new(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
            }
            let (blobs, _) = path.split_once("uploads/").unwrap();
            contents.insert(format!("{blobs}{digest}"), (String::new(), blob));
            Reply::new(201, "")
        }
    }
}

fn serve(stream: TcpStream, handle: impl Fn(&Request) -> Reply) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    // The first byte of a TLS handshake: Go's server, and so registries, answer it so.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno TLS here");
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers
            .get("content-length")
            .and_then(|value| value.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let request = Request {
            method,
            path,
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            bytes: body,
        };
        let head = request.method == "HEAD";
        if !respond(&mut stream, &handle(&request), head)? {
            return Ok(());
        }
    }
}

/// Sends an answer; false if the connection is to end.
fn respond(stream: &mut TcpStream, reply: &Reply, head_only: bool) -> std::io::Result<bool> {
    let length = reply.claim.unwrap_or(reply.body.len());
    let mut head = format!(
        "HTTP/1.1 {} X\r\nContent-Length: {length}\r\n",
        reply.status
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if head_only {
        return Ok(true);
    }
    let end = reply
        .cut_after
        .unwrap_or(reply.body.len())
        .min(reply.body.len());
    let body = &reply.body[..end];
    if let Some(pause) = reply.stall {
        stream.write_all(&body[..end / 2])?;
        stream.flush()?;
        std::thread::sleep(pause);
        stream.write_all(&body[end / 2..])?;
    } else if let Some((size, pause)) = reply.drip {
        for chunk in body.chunks(size) {
            stream.write_all(chunk)?;
            std::thread::sleep(pause);
        }
    } else {
        stream.write_all(body)?;
    }
    Ok(end == length)
}
