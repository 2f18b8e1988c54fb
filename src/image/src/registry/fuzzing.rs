//! For `fuzz/` only.

use std::path::Path;

use url::Url;

use super::auth::{Credentials, challenges};
use super::http::join;
use super::proxy::Proxies;

/// What a registry says in its headers, and what the environment says of proxies.
pub fn registry(text: &str) {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let _ = challenges(line());
    let base: Url = "https://registry.example:5000/v2/a/b"
        .parse()
        .expect("a URL");
    let target = join(&base, line());
    if let Some(url) = &target {
        assert!(url.has_host() && url.username().is_empty() && url.password().is_none());
    }
    let (http, https, none) = (line().to_owned(), line().to_owned(), line().to_owned());
    let proxies = Proxies::from_environment(|name| match name {
        "HTTP_PROXY" => Some(http.clone()),
        "HTTPS_PROXY" => Some(https.clone()),
        "NO_PROXY" => Some(none.clone()),
        _ => None,
    });
    if let Ok(proxies) = proxies {
        let _ = proxies.for_url(&base);
        let _ = target.map(|url| proxies.for_url(&url).is_some());
    }
}

/// Docker's configuration in `folder`, asked for a registry. It may name a helper, which is
/// executed if it is on PATH.
pub fn credentials(domain: &str, folder: &Path) {
    let found = Credentials::look_up(domain, Some(folder.to_owned()));
    let _ = found.user();
}
