//! Showing a registry who asks: challenges (RFC 9110, section 11), tokens (distribution's "Token Authentication
//! Specification"), and the credentials that `docker login` left.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use ureq::http::Uri;

use super::Error;
use super::http::{Http, Request};

/// The largest answer of an authorisation server, in bytes. Tokens are some KiB.
const MAX_TOKEN_LEN: u64 = 1 << 20;
/// Under which name `docker login` files Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// One scheme that a server accepts, with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The challenges of a WWW-Authenticate header.
pub(super) fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        if token.is_empty() {
            return found;
        }
        rest = after.trim_start_matches([' ', '\t']);
        match rest.strip_prefix('=') {
            Some(value) => {
                let (value, after) = parameter_value(value.trim_start_matches([' ', '\t']));
                rest = after;
                if let Some(challenge) = found.last_mut() {
                    challenge
                        .parameters
                        .push((token.to_ascii_lowercase(), value));
                }
            }
            None => found.push(Challenge {
                scheme: token.to_ascii_lowercase(),
                parameters: Vec::new(),
            }),
        }
    }
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// What Docker's configuration has for a registry.
#[derive(Debug)]
pub(super) enum Credentials {
    None,
    Password {
        user: String,
        password: String,
    },
    /// A refresh token, to be exchanged at the authorisation server.
    Identity {
        token: String,
    },
    /// There should have been some.
    Failed(Arc<CredentialRetrievalError>),
}

impl Credentials {
    /// Looks them up, perhaps by running a credential helper.
    pub(super) fn look_up(domain: &str, config_folder: Option<PathBuf>) -> Credentials {
        let Some(path) = config_folder.map(|folder| folder.join("config.json")) else {
            return Credentials::None;
        };
        let server = if domain == "docker.io" {
            DOCKER_HUB_KEY
        } else {
            domain
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Credentials::None,
            Err(_) => return Credentials::Failed(CredentialRetrievalError::ConfigReadError.into()),
        };
        match docker_credential::get_credential_from_reader(file, server) {
            Ok(DockerCredential::IdentityToken(token)) => Credentials::Identity { token },
            Ok(DockerCredential::UsernamePassword(user, password)) if !user.is_empty() => {
                Credentials::Password { user, password }
            }
            Ok(_) | Err(CredentialRetrievalError::NoCredentialConfigured) => Credentials::None,
            // A helper's way to say that it has none (docker-credential-helpers, credentials/error.go).
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") =>
            {
                Credentials::None
            }
            Err(error) => Credentials::Failed(error.into()),
        }
    }

    pub(super) fn user(&self) -> Option<String> {
        match self {
            Credentials::Password { user, .. } => Some(user.clone()),
            Credentials::Identity { .. } => Some("<token>".to_owned()),
            Credentials::None | Credentials::Failed(_) => None,
        }
    }

    fn basic(&self) -> Option<String> {
        match self {
            Credentials::Password { user, password } => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{user}:{password}"))
            )),
            _ => None,
        }
    }
}

/// Docker's configuration folder: `DOCKER_CONFIG`, else `~/.docker`.
pub(super) fn docker_config_folder() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
    named
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Meets a challenge: the value of an Authorization header, or `None` if it takes credentials that are not there.
pub(super) fn authorise(
    http: &Http,
    host: &str,
    repository: &str,
    challenges: &[Challenge],
    credentials: &Credentials,
) -> Result<Option<String>, Error> {
    if let Some(bearer) = challenges
        .iter()
        .find(|challenge| challenge.scheme == "bearer")
    {
        return token(http, host, repository, bearer, credentials);
    }
    match challenges
        .iter()
        .any(|challenge| challenge.scheme == "basic")
    {
        true => Ok(credentials.basic()),
        false => Err(Error::Challenge {
            host: host.to_owned(),
        }),
    }
}

fn token(
    http: &Http,
    host: &str,
    repository: &str,
    challenge: &Challenge,
    credentials: &Credentials,
) -> Result<Option<String>, Error> {
    let unsupported = || Error::Challenge {
        host: host.to_owned(),
    };
    let realm = challenge.parameter("realm").ok_or_else(unsupported)?;
    let base: Uri = realm.parse().map_err(|_| unsupported())?;
    let server = base.authority().ok_or_else(unsupported)?.to_string();
    if server.contains('@') {
        return Err(unsupported());
    }
    let service = challenge.parameter("service").unwrap_or_default();
    let default_scope = format!("repository:{repository}:pull");
    let scope = challenge.parameter("scope").unwrap_or(&default_scope);
    let answer = if let Credentials::Identity { token } = credentials {
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "hull"),
            ("scope", scope),
            ("refresh_token", token.as_str()),
        ];
        http.send(
            &base,
            &Request {
                form: Some(&form),
                ..Request::default()
            },
        )?
    } else {
        let joint = if realm.contains('?') { '&' } else { '?' };
        let mut url = format!("{realm}{joint}scope={}", percent_encoded(scope));
        if !service.is_empty() {
            url.push_str(&format!("&service={}", percent_encoded(service)));
        }
        let url: Uri = url.parse().map_err(|_| unsupported())?;
        let basic = credentials.basic();
        http.send(
            &url,
            &Request {
                authorization: basic.as_deref(),
                ..Request::default()
            },
        )?
    };
    match answer.status().as_u16() {
        200 => {}
        401 | 403 => return Ok(None),
        status => {
            let path = base.path().chars().take(100).collect();
            return Err(Error::Status {
                host: server,
                path,
                status,
                retry_after_s: None,
            });
        }
    }
    let unusable = || Error::Token {
        host: host.to_owned(),
        realm: server.clone(),
    };
    let mut text = Vec::new();
    let mut body = answer.into_body().into_reader().take(MAX_TOKEN_LEN);
    body.read_to_end(&mut text).map_err(|_| unusable())?;
    let answer: TokenAnswer = serde_json::from_slice(&text).map_err(|_| unusable())?;
    let token = answer.token.or(answer.access_token).ok_or_else(unusable)?;
    let printable = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    if printable {
        Ok(Some(format!("Bearer {token}")))
    } else {
        Err(unusable())
    }
}

/// RFC 3986, section 2.1, of everything but unreserved characters.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
