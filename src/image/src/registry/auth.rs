//! Authentication: challenges (RFC 9110, section 11), tokens (distribution's "Token Authentication
//! Specification" and "OAuth2 Token Specification"), and the credentials that `docker login` left.
//!
//! Challenges are parsed here, not by the `http-auth` crate: that refuses a whole header for one
//! parameter that lacks its quotes, which Docker tolerates, and so do the registries tested with
//! it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, StatusCode, header};
use url::Url;

use super::Error;
use super::http::{Http, Request, authority};

/// The largest answer of an authorisation server, in bytes. Tokens are some KiB.
const MAX_TOKEN_LEN: u64 = 1 << 20;
/// The key under which `docker login` stores the credentials of Docker Hub.
pub(crate) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

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

/// Credentials for a registry from Docker's configuration.
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
    /// The configuration names a source of credentials that failed.
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
            // How a helper reports that it has none (docker-credential-helpers,
            // credentials/error.go).
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
pub(crate) fn docker_config_folder() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
    named
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))
}

/// The answer of an authorisation server. Either name is in use, also with the other one empty.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenAnswer {
    fn into_token(self) -> Option<String> {
        let given = |token: Option<String>| token.filter(|token| !token.is_empty());
        given(self.token).or_else(|| given(self.access_token))
    }
}

/// Answers a challenge: the value of an Authorization header, or `None` if access is denied with
/// these credentials.
pub(super) fn authorise(
    http: &Http,
    host: &str,
    repository: &str,
    challenges: &[Challenge],
    credentials: &Credentials,
) -> Result<Option<String>, Error> {
    let bearer = challenges
        .iter()
        .filter(|challenge| challenge.scheme == "bearer")
        .find_map(|challenge| Some((challenge, realm(challenge)?)));
    if let Some((challenge, realm)) = bearer {
        let exchange = Exchange {
            http,
            host,
            realm,
            service: challenge.parameter("service").unwrap_or_default(),
            scope: match challenge.parameter("scope") {
                // At a login, nothing is asked for but that the password be right.
                None | Some("") if repository.is_empty() => String::new(),
                None | Some("") => format!("repository:{repository}:pull"),
                Some(scope) => scope.to_owned(),
            },
        };
        return exchange.token(credentials);
    }
    let basic = |challenge: &Challenge| challenge.scheme == "basic";
    // A registry that does not say how to authenticate just denies access.
    match challenges.is_empty() || challenges.iter().any(basic) {
        true => Ok(credentials.basic().filter(|_| !challenges.is_empty())),
        false => Err(Error::Challenge {
            host: host.to_owned(),
        }),
    }
}

/// The address of a challenge's authorisation server.
fn realm(challenge: &Challenge) -> Option<Url> {
    let url = Url::parse(challenge.parameter("realm")?).ok()?;
    let anonymous = url.username().is_empty() && url.password().is_none();
    (anonymous && url.has_host()).then_some(url)
}

/// Credentials for a token.
struct Exchange<'a> {
    http: &'a Http,
    /// Of the registry, for messages.
    host: &'a str,
    realm: Url,
    service: &'a str,
    /// Scopes, separated by spaces.
    scope: String,
}

impl Exchange<'_> {
    /// The value of an Authorization header; `None` if the server denies it.
    fn token(&self, credentials: &Credentials) -> Result<Option<String>, Error> {
        let is_identity = matches!(credentials, Credentials::Identity { .. });
        let answer = self.ask(credentials)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            // RFC 6749, section 5.2: the refresh token is not valid, or not any more.
            StatusCode::BAD_REQUEST if is_identity => return Ok(None),
            status => {
                return Err(Error::Status {
                    host: authority(&self.realm),
                    path: self.realm.path().chars().take(100).collect(),
                    status: status.as_u16(),
                    retry_after_s: retry_after_s(&answer),
                });
            }
        }
        let unusable = || Error::Token {
            host: self.host.to_owned(),
            realm: authority(&self.realm),
        };
        let mut text = Vec::new();
        let mut body = answer.into_body().into_reader().take(MAX_TOKEN_LEN);
        body.read_to_end(&mut text).map_err(|_| unusable())?;
        let answer: TokenAnswer = serde_json::from_slice(&text).map_err(|_| unusable())?;
        let token = answer.into_token().ok_or_else(unusable)?;
        match token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Some(format!("Bearer {token}"))),
            false => Err(unusable()),
        }
    }

    fn ask(&self, credentials: &Credentials) -> Result<Response<Body>, Error> {
        let Credentials::Identity { token } = credentials else {
            let basic = credentials.basic();
            let request = Request {
                authorization: basic.as_deref(),
                ..Request::default()
            };
            return self.http.send(&self.query(), &request);
        };
        let form = [
            ("grant_type", "refresh_token"),
            ("service", self.service),
            ("client_id", "hull"),
            ("scope", self.scope.as_str()),
            ("refresh_token", token.as_str()),
        ];
        let request = Request {
            form: Some(&form),
            ..Request::default()
        };
        self.http.send(&self.realm, &request)
    }

    /// The address of a GET: each scope is a parameter of its own.
    fn query(&self) -> Url {
        let mut url = self.realm.clone();
        let mut query = url.query_pairs_mut();
        for scope in self.scope.split_ascii_whitespace() {
            query.append_pair("scope", scope);
        }
        if !self.service.is_empty() {
            query.append_pair("service", self.service);
        }
        drop(query);
        url
    }
}

/// Retry-After, where it is given in seconds.
pub(super) fn retry_after_s(response: &Response<Body>) -> Option<u64> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
