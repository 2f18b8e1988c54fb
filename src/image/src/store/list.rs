//! Listing images by Docker's filters. Values of one key are alternatives, labels and keys must all match.

use super::glob::Pattern;
use super::{Error, Image, Result, Store};

/// Which images to list; the default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// `true`: only those without a tag. `false`: only those with a name.
    pub dangling: Option<bool>,
    /// All must match.
    pub labels: Vec<LabelFilter>,
    /// Only those that were built before this image, given by name or id.
    pub before: Option<String>,
    /// Only those that were built after this image, given by name or id.
    pub since: Option<String>,
    /// Only those that were built at or before this time, in seconds since 1970.
    pub until_s: Option<i64>,
    /// Only those with a name that one of these matches; other names are left out.
    pub references: Vec<Pattern>,
}

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    /// Its key.
    pub key: String,
    /// Its value; any if `None`.
    pub value: Option<String>,
    /// Docker's `label!=`: it must not be so.
    pub negated: bool,
}

impl LabelFilter {
    /// Whether the image's labels are so.
    pub fn matches(&self, image: &Image) -> bool {
        let labels = image
            .config
            .config()
            .as_ref()
            .and_then(|c| c.labels().as_ref());
        let value = labels.and_then(|labels| labels.get(&self.key));
        let is_so = match (&self.value, value) {
            (Some(wanted), Some(value)) => wanted == value,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        is_so != self.negated
    }
}

impl Store {
    /// The images that the filter lets through, the newest built first. Their files are not looked at. An image that
    /// `before` or `since` names must be there.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<Image>> {
        let before_s = filter.before.as_deref().map(|text| self.built_s(text));
        let since_s = filter.since.as_deref().map(|text| self.built_s(text));
        let (before_s, since_s) = (before_s.transpose()?, since_s.transpose()?);
        let mut images = self.images()?;
        images.retain_mut(|image| {
            let built_s = image.built_s();
            before_s.is_none_or(|limit| built_s < limit)
                && since_s.is_none_or(|limit| built_s > limit)
                && filter.until_s.is_none_or(|limit| built_s <= limit)
                && filter.labels.iter().all(|label| label.matches(image))
                && filter.dangling.is_none_or(|dangling| match dangling {
                    true => image.names.is_empty(),
                    false => !image.names.is_empty() || !image.digests.is_empty(),
                })
                && retain_names(image, &filter.references)
        });
        images.sort_by_key(|image| std::cmp::Reverse(image.built_s()));
        Ok(images)
    }

    fn built_s(&self, text: &str) -> Result<i64> {
        let image = self.find(text)?.ok_or_else(|| Error::NotFound {
            what: text.to_owned(),
        })?;
        Ok(image.built_s())
    }
}

impl Image {
    /// When it was built, in seconds since 1970; one that does not say is as old as can be.
    pub(super) fn built_s(&self) -> i64 {
        self.created_s.unwrap_or(i64::MIN)
    }
}

/// Leaves the names that a pattern matches; `false` if there are patterns and no such name.
fn retain_names(image: &mut Image, patterns: &[Pattern]) -> bool {
    if patterns.is_empty() {
        return true;
    }
    for names in [&mut image.names, &mut image.digests] {
        names.retain(|name| patterns.iter().any(|pattern| pattern.matches_name(name)));
    }
    !image.names.is_empty() || !image.digests.is_empty()
}
