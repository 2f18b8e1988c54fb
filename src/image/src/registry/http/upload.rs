//! Requests with a body. Redirects are not followed: a body is read once, and registries say in a Location where it is
//! to go.

use std::io::Read;
use std::time::Duration;

use ureq::http::{self, Method, Response, Uri, header};
use ureq::{Body, Proxy, SendBody};
use url::Url;

use super::{Http, authority};
use crate::registry::Error;

/// How long a registry may take to answer once it has a body: it hashes and stores what may be many gigabytes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A POST, PUT or PATCH.
pub(in crate::registry) struct Upload<'a> {
    pub(in crate::registry) method: Method,
    pub(in crate::registry) authorization: Option<&'a str>,
    pub(in crate::registry) content_type: &'a str,
    /// For a part of a blob: its first and its last byte.
    pub(in crate::registry) content_range: Option<(u64, u64)>,
    pub(in crate::registry) body: &'a mut dyn Read,
    /// Of the body.
    pub(in crate::registry) length: u64,
}

impl Http {
    /// The answer to a request with a body, whatever its status.
    pub(in crate::registry) fn upload(
        &self,
        url: &Url,
        upload: Upload<'_>,
    ) -> Result<Response<Body>, Error> {
        self.check_scheme(url)?;
        let uri: Uri = url
            .as_str()
            .parse()
            .map_err(|_| self.bad_redirect(url.as_str()))?;
        let mut request = http::Request::builder()
            .method(upload.method)
            .uri(uri)
            .header(header::CONTENT_LENGTH, upload.length);
        if let Some(authorization) = upload.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if upload.length > 0 {
            request = request.header(header::CONTENT_TYPE, upload.content_type);
        }
        if let Some((first, last)) = upload.content_range {
            // Without a unit: distribution-spec 1.1, "Pushing a blob in chunks".
            request = request.header(header::CONTENT_RANGE, format!("{first}-{last}"));
        }
        let proxy = self.proxies.for_url(url);
        let unreachable = |source: ureq::Error| Error::Unreachable {
            host: authority(url),
            proxy: proxy.map(|proxy: &Proxy| format!("{}:{}", proxy.host(), proxy.port())),
            source: Box::new(source),
        };
        let request = request
            .body(SendBody::from_reader(upload.body))
            .map_err(|error| unreachable(error.into()))?;
        let request = self
            .agent
            .configure_request(request)
            .proxy(proxy.cloned())
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .build();
        self.agent.run(request).map_err(unreachable)
    }
}
