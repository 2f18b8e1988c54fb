//! The tags of a repository (distribution-spec 1.1, "Listing Tags"), page by page.

use ureq::http::header;

use super::http::{Request, address, join};
use super::{Client, Error};

/// The largest page, in bytes.
const MAX_PAGE_LEN: u64 = 4 << 20;
/// The most pages and tags that are taken from one repository.
const MAX_PAGES: usize = 1000;
const MAX_TAGS: usize = 100_000;

#[derive(serde::Deserialize)]
struct Page {
    /// Null where a repository has none.
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags, as the registry sorts them. A tag that no reference could have is left out.
    pub(crate) fn tags(&self) -> Result<Vec<String>, Error> {
        let mut path = format!("/v2/{}/tags/list", self.repository);
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.get(&path, &Request::default())?;
            if response.status().as_u16() == 404 {
                return Err(Error::NotFound {
                    host: self.host.clone(),
                    name: self.repository.clone(),
                });
            }
            self.check_status(&response, &path)?;
            let link = response.headers().get(header::LINK);
            let next = link.and_then(|link| next_page(link.to_str().ok()?).map(str::to_owned));
            let text = self.bounded(response, "list of tags", MAX_PAGE_LEN)?;
            let page: Page = serde_json::from_slice(&text).map_err(|source| Error::TagList {
                host: self.host.clone(),
                source,
            })?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > MAX_TAGS {
                return Err(Error::TooLarge {
                    host: self.host.clone(),
                    what: "list of tags",
                    max: MAX_TAGS as u64,
                });
            }
            let Some(next) = next else { break };
            path = self.same_origin_path(&path, &next)?;
        }
        tags.retain(|tag| crate::reference::is_tag(tag));
        Ok(tags)
    }

    /// Path and query of a link, which must not lead away from the registry.
    fn same_origin_path(&self, path: &str, link: &str) -> Result<String, Error> {
        let base = address(&format!("{}{path}", self.base))?;
        let url = join(&base, link).filter(|url| url.origin() == base.origin());
        let url = url.ok_or_else(|| Error::Redirect {
            host: self.host.clone(),
            location: link.chars().take(200).collect(),
        })?;
        Ok(match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        })
    }
}

/// The target of a Link header's `rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim().to_ascii_lowercase();
            parameter == "rel=next" || parameter == "rel=\"next\""
        });
        is_next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::next_page;

    #[test]
    fn the_next_page_is_the_link_that_says_so() {
        let link = "</v2/a/tags/list?last=1&n=1>; rel=\"next\"";
        assert_eq!(next_page(link), Some("/v2/a/tags/list?last=1&n=1"));
        assert_eq!(next_page("<a>; rel=prev, <b>; x=y; rel=next"), Some("b"));
        for header in ["", "<a>", "<a; rel=next", "a; rel=next"] {
            assert_eq!(next_page(header), None, "{header}");
        }
    }
}
