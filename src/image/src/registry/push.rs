//! The pushing half of the distribution protocol (distribution-spec 1.1, "Push"): blobs in one piece, or in chunks where
//! a registry or something before it takes no large requests; then manifests.

use std::io::{self, Read};

use ureq::Body;
use ureq::http::{Method, Response, header};
use url::Url;

use super::http::{Request, Upload, address, join};
use super::{Client, Error, auth};
use crate::digest::Digest;

/// What a chunk has at most, unless the registry wants larger ones: proxies commonly take 50 or 100 MB.
const CHUNK_BYTES: u64 = 8 << 20;
/// The largest chunk that a registry may ask for.
const MAX_CHUNK_BYTES: u64 = 1 << 30;
/// How much of an error's text is looked at.
const MAX_ERROR_LEN: u64 = 16 << 10;
const OCTETS: &str = "application/octet-stream";

/// Where a blob's bytes go.
pub(crate) struct Session {
    url: Url,
    /// The smallest chunk that the registry takes.
    min_chunk_bytes: u64,
}

/// A blob to be sent. Its bytes can be read from any place, any number of times.
pub(crate) struct Blob<'a> {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    /// Reads so many bytes from this place on.
    pub(crate) open: &'a dyn Fn(u64, u64) -> Box<dyn Read + 'a>,
}

/// The answer to an attempt to take a blob from another repository.
pub(crate) enum Mounted {
    /// It is there.
    Yes,
    /// It must be sent, for which the registry has begun a session.
    No(Session),
}

impl Client {
    /// Whether the repository has a blob.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        let request = Request {
            head: true,
            ..Request::default()
        };
        let response = self.get(&path, &request)?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused("HEAD", &path, response)),
        }
    }

    /// Asks the registry to take a blob from another of its repositories.
    pub(crate) fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, Error> {
        let mut url = self.uploads_url()?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from);
        let response = self.post(&url)?;
        match response.status().as_u16() {
            201 => Ok(Mounted::Yes),
            202 => self.session(&url, &response).map(Mounted::No),
            _ => Err(self.refused("POST", url.path(), response)),
        }
    }

    /// Sends a blob, into a session that was begun for it or a new one.
    pub(crate) fn send_blob(&self, blob: &Blob<'_>, session: Option<Session>) -> Result<(), Error> {
        let session = session.map_or_else(|| self.start(), Ok)?;
        let mut url = session.url;
        url.query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let response = match self.send_part(Method::PUT, &url, blob, None) {
            // A server that takes no large requests may close the connection before its answer is read.
            Err(Error::Unreachable { .. }) if blob.size_bytes > CHUNK_BYTES => {
                return self.send_chunks(blob);
            }
            result => result?,
        };
        match response.status().as_u16() {
            201 | 204 => Ok(()),
            // Too large for whatever stands before the registry.
            413 if blob.size_bytes > CHUNK_BYTES => self.send_chunks(blob),
            _ => Err(self.refused("PUT", url.path(), response)),
        }
    }

    fn send_chunks(&self, blob: &Blob<'_>) -> Result<(), Error> {
        let mut session = self.start()?;
        let chunk_bytes = session.min_chunk_bytes.max(CHUNK_BYTES);
        let mut sent = 0;
        while sent < blob.size_bytes {
            let end = blob.size_bytes.min(sent + chunk_bytes);
            let part = Some((sent, end - 1));
            let response = self.send_part(Method::PATCH, &session.url, blob, part)?;
            match response.status().as_u16() {
                202 | 204 => session = self.session(&session.url, &response)?,
                _ => return Err(self.refused("PATCH", session.url.path(), response)),
            }
            sent = end;
        }
        let mut url = session.url;
        url.query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let response = self.send_empty(Method::PUT, &url)?;
        match response.status().as_u16() {
            201 | 204 => Ok(()),
            _ => Err(self.refused("PUT", url.path(), response)),
        }
    }

    /// Stores a manifest under a tag or its digest.
    pub(crate) fn put_manifest(
        &self,
        which: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let path = format!("/v2/{}/manifests/{which}", self.repository);
        let url = address(&format!("{}{path}", self.base))?;
        let response = self.authorised(|authorization| {
            let upload = Upload {
                method: Method::PUT,
                authorization,
                content_type: media_type,
                content_range: None,
                body: &mut &bytes[..],
                length: bytes.len() as u64,
            };
            self.http.upload(&url, upload)
        })?;
        if !matches!(response.status().as_u16(), 200..=202) {
            return Err(self.refused("PUT", &path, response));
        }
        let digest = Digest::of(bytes);
        let claimed = response.headers().get("docker-content-digest");
        if let Some(claimed) = claimed.and_then(|value| value.to_str().ok()?.parse().ok()) {
            self.check_digest("manifest", &digest, claimed)?;
        }
        Ok(digest)
    }

    fn uploads_url(&self) -> Result<Url, Error> {
        address(&format!(
            "{}/v2/{}/blobs/uploads/",
            self.base, self.repository
        ))
    }

    fn start(&self) -> Result<Session, Error> {
        let url = self.uploads_url()?;
        let response = self.post(&url)?;
        match response.status().as_u16() {
            202 => self.session(&url, &response),
            _ => Err(self.refused("POST", url.path(), response)),
        }
    }

    fn post(&self, url: &Url) -> Result<Response<Body>, Error> {
        self.send_empty(Method::POST, url)
    }

    fn send_empty(&self, method: Method, url: &Url) -> Result<Response<Body>, Error> {
        self.authorised(|authorization| {
            let upload = Upload {
                method: method.clone(),
                authorization: self.own(url, authorization),
                content_type: OCTETS,
                content_range: None,
                body: &mut io::empty(),
                length: 0,
            };
            self.http.upload(url, upload)
        })
    }

    /// Sends a blob, or the part of it from the first to the last of these bytes.
    fn send_part(
        &self,
        method: Method,
        url: &Url,
        blob: &Blob<'_>,
        part: Option<(u64, u64)>,
    ) -> Result<Response<Body>, Error> {
        let (start, length) = match part {
            Some((first, last)) => (first, last - first + 1),
            None => (0, blob.size_bytes),
        };
        self.authorised(|authorization| {
            let mut body = (blob.open)(start, length);
            let upload = Upload {
                method: method.clone(),
                authorization: self.own(url, authorization),
                content_type: OCTETS,
                content_range: part,
                body: &mut body,
                length,
            };
            self.http.upload(url, upload)
        })
    }

    /// Credentials go to the registry's own origin only: a session may be elsewhere.
    fn own<'a>(&self, url: &Url, authorization: Option<&'a str>) -> Option<&'a str> {
        let base = Url::parse(&self.base).ok()?;
        authorization.filter(|_| base.origin() == url.origin())
    }

    /// Where an answer says that the blob, or its next part, is to go.
    fn session(&self, from: &Url, response: &Response<Body>) -> Result<Session, Error> {
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let location = header(header::LOCATION.as_str()).unwrap_or_default();
        let url = join(from, location).ok_or_else(|| Error::Redirect {
            host: self.host.clone(),
            location: location.chars().take(200).collect(),
        })?;
        let min = header("oci-chunk-min-length").and_then(|value| value.parse().ok());
        Ok(Session {
            url,
            min_chunk_bytes: min.unwrap_or(0).min(MAX_CHUNK_BYTES),
        })
    }

    pub(super) fn refused(
        &self,
        method: &'static str,
        path: &str,
        response: Response<Body>,
    ) -> Error {
        let (status, retry_after_s) = (response.status().as_u16(), auth::retry_after_s(&response));
        let mut text = Vec::new();
        let mut body = response.into_body().into_reader().take(MAX_ERROR_LEN);
        // A text that breaks off is as good as none.
        let _ = body.read_to_end(&mut text);
        Error::Refused {
            host: self.host.clone(),
            method,
            path: path.chars().take(200).collect(),
            status,
            message: message(&text),
            retry_after_s,
        }
    }
}

/// What a registry's error says (distribution-spec 1.1, "Error Codes").
fn message(text: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(text).ok()?;
    let error = document.get("errors")?.get(0)?;
    let said = |name: &str| error.get(name)?.as_str().filter(|text| !text.is_empty());
    let said = said("message").or_else(|| said("code"))?;
    // It comes from a stranger and goes to a terminal.
    Some(
        said.chars()
            .take(300)
            .collect::<String>()
            .escape_debug()
            .to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn a_registrys_error_is_told_in_its_own_words() {
        let text = br#"{"errors":[{"code":"DENIED","message":"not \u001b[1mhere"}]}"#;
        assert_eq!(message(text).unwrap(), "not \\u{1b}[1mhere");
        assert_eq!(
            message(br#"{"errors":[{"code":"DENIED"}]}"#).unwrap(),
            "DENIED"
        );
        for text in [&b""[..], b"<html>", b"{}", b"{\"errors\":[]}", b"[]"] {
            assert_eq!(message(text), None);
        }
    }
}
