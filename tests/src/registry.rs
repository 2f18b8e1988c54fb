//! A registry on the loopback interface with one image, and that image as an archive: what tests pull and import.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use serde_json::json;
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image of several layers, each with one file.
#[derive(Debug)]
pub struct Image {
    /// Tar archives, bottom first.
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// The content of the file `/layer<n>` of each layer.
    pub fn new(contents: &[&[u8]]) -> Result<Image> {
        let mut layers = Vec::new();
        for (number, content) in contents.iter().enumerate() {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("layer{number}"), *content)?;
            layers.push(tar.into_inner()?);
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))?;
        let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let tars = layers
            .iter()
            .map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer));
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": blob("application/vnd.oci.image.config.v1+json", &config),
            "layers": tars.collect::<Vec<_>>(),
        }))?;
        Ok(Image {
            layers,
            config,
            manifest,
        })
    }

    /// What `docker save` writes, without a name.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes)
        };
        let names: Vec<_> = (0..self.layers.len())
            .map(|number| format!("{number}.tar"))
            .collect();
        for (name, layer) in names.iter().zip(&self.layers) {
            add(name, layer)?;
        }
        add("config.json", &self.config)?;
        let manifest = json!([{ "Config": "config.json", "RepoTags": null, "Layers": names }]);
        add("manifest.json", &serde_json::to_vec(&manifest)?)?;
        Ok(tar.into_inner()?)
    }
}

/// A server that runs until it is stopped, or the process ends.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Registry {
    /// Serves `image` as `app:latest`.
    pub fn serve(image: &Image) -> Result<Registry> {
        let mut paths = BTreeMap::new();
        for blob in image.layers.iter().chain([&image.config]) {
            let path = format!("/v2/app/blobs/{}", digest(blob));
            paths.insert(path, ("application/octet-stream", blob.clone()));
        }
        for name in ["latest", &digest(&image.manifest)] {
            let path = format!("/v2/app/manifests/{name}");
            paths.insert(path, (MANIFEST, image.manifest.clone()));
        }
        paths.insert("/v2/".to_owned(), ("application/json", b"{}".to_vec()));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let paths = Arc::new(paths);
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let paths = paths.clone();
                // Some tests kill their clients: not an error.
                thread::spawn(move || answer(stream, &paths).ok());
            }
        });
        Ok(Registry { address, over })
    }

    /// Ends the server; connections that are open go on.
    pub fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        // The next connection is its last. If none can be made, it has ended already.
        let _ = TcpStream::connect(self.address);
    }

    /// The image's reference.
    pub fn reference(&self) -> String {
        format!("{}/app", self.address)
    }
}

type Paths = BTreeMap<String, (&'static str, Vec<u8>)>;

fn answer(stream: TcpStream, paths: &Paths) -> Result<()> {
    let mut to = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        for header in lines.by_ref() {
            if header?.is_empty() {
                break;
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next(), words.next().unwrap_or_default());
        let (status, (kind, body)) = match paths.get(path) {
            Some(found) => ("200 OK", found.clone()),
            None => ("404 Not Found", ("application/json", b"{}".to_vec())),
        };
        let len = body.len();
        write!(
            to,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n\r\n"
        )?;
        if method != Some("HEAD") {
            to.write_all(&body)?;
        }
    }
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("sha256:{hex}")
}
