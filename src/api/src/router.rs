//! From a method and a path to a handler.

use hyper::Method;
use percent_encoding::percent_decode_str;

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::handlers::{
    containers, copy, exec, images, networks, refused, stats, streams, system, transfer, volumes,
};
use crate::{API_VERSION, MIN_API_VERSION};

/// The longest path: names of images have at most 255 characters.
const MAX_PATH_LEN: usize = 4096;
/// The most parts of a path.
const MAX_PARTS: usize = 64;

/// A version of the API: 1.`minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

/// What a handler reads of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// A document, in memory.
    Document,
    /// An archive, as it comes.
    Archive,
    /// A process's input.
    Streams,
}

pub(crate) type Handler = fn(Call) -> Answer;

/// What a request is answered by.
#[derive(Debug)]
pub struct Matched {
    /// As the client asked for it; the latest if it did not.
    pub version: Version,
    /// What the path names: a container, an image, …
    pub target: String,
    pub(crate) handler: Handler,
    pub(crate) body: Body,
}

/// Finds the handler of a request.
pub fn find(method: &Method, path: &str) -> Result<Matched, Failure> {
    let not_found = || Failure::new(404, "page not found");
    if path.len() > MAX_PATH_LEN {
        return Err(Failure::new(414, "the path is too long"));
    }
    let (version, path) = version(path)?;
    let mut parts = Vec::new();
    for part in path.strip_prefix('/').ok_or_else(not_found)?.split('/') {
        if parts.len() == MAX_PARTS {
            return Err(not_found());
        }
        let part = percent_decode_str(part).decode_utf8();
        parts.push(part.map_err(|_| not_found())?.into_owned());
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    // What HEAD asks for is GET's, without the body.
    let method = match method.as_str() {
        "HEAD" if parts != ["_ping"] && parts.last() != Some(&"archive") => "GET",
        other => other,
    };
    let (handler, target) = handler(method, &parts).ok_or_else(not_found)?;
    Ok(Matched {
        version,
        target,
        handler,
        body: body(method, &parts),
    })
}

fn body(method: &str, parts: &[&str]) -> Body {
    match (method, parts) {
        ("PUT", ["containers", _, "archive"]) | ("POST", ["images", "load" | "create"]) => {
            Body::Archive
        }
        ("POST", ["containers", _, "attach"]) => Body::Streams,
        _ => Body::Document,
    }
}

/// Takes the version off a path.
fn version(path: &str) -> Result<(Version, &str), Failure> {
    let latest = || minor(API_VERSION).unwrap_or(Version(0));
    let parts = path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'));
    let Some((text, rest)) = parts else {
        return Ok((latest(), path));
    };
    let is_version = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    if !is_version(text) {
        return Ok((latest(), path));
    }
    let rest = &path[path.len() - rest.len() - 1..];
    let asked =
        minor(text).ok_or_else(|| Failure::invalid(format!("invalid API version: {text}")))?;
    let least = minor(MIN_API_VERSION).unwrap_or(asked);
    if asked < least {
        return Err(Failure::invalid(format!(
            "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your \
             client to a newer version"
        )));
    }
    if asked > latest() {
        return Err(Failure::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    Ok((asked, rest))
}

fn minor(text: &str) -> Option<Version> {
    text.strip_prefix("1.")?.parse().ok().map(Version)
}

fn handler(method: &str, parts: &[&str]) -> Option<(Handler, String)> {
    let (handler, target): (Handler, &str) = match (method, parts) {
        ("GET" | "HEAD", ["_ping"]) => (system::ping, ""),
        ("GET", ["version"]) => (system::version, ""),
        ("GET", ["info"]) => (system::info, ""),
        ("GET", ["events"]) => (streams::events, ""),
        ("GET", ["system", "df"]) => (system::disk_usage, ""),
        ("POST", ["auth"]) => (system::auth, ""),
        ("GET", ["containers", "json"]) => (containers::list, ""),
        ("POST", ["containers", "create"]) => (containers::create, ""),
        ("POST", ["containers", "prune"]) => (containers::prune, ""),
        ("DELETE", ["containers", id]) => (containers::remove, id),
        ("GET", ["containers", id, "json"]) => (containers::inspect, id),
        ("GET", ["containers", id, "logs"]) => (streams::logs, id),
        ("GET", ["containers", id, "stats"]) => (stats::stats, id),
        ("GET", ["containers", id, "top"]) => (containers::top, id),
        ("GET", ["containers", id, "changes"]) => (copy::changes, id),
        ("GET", ["containers", id, "export"]) => (copy::export, id),
        ("HEAD", ["containers", id, "archive"]) => (copy::stat, id),
        ("GET", ["containers", id, "archive"]) => (copy::get, id),
        ("PUT", ["containers", id, "archive"]) => (copy::put, id),
        ("GET", ["containers", _, "attach", "ws"]) => (refused::websocket, ""),
        ("POST", ["containers", id, action]) => (on_container(action)?, id),
        ("POST", ["commit"]) => (images::commit, ""),
        ("GET", ["exec", id, "json"]) => (exec::inspect, id),
        ("POST", ["exec", id, "start"]) => (exec::start, id),
        ("POST", ["exec", id, "resize"]) => (exec::resize, id),
        ("GET", ["images", "json"]) => (images::list, ""),
        ("GET", ["images", "search"]) => (refused::search, ""),
        ("GET", ["images", "get"]) => (transfer::save_several, ""),
        ("POST", ["images", "create"]) => (transfer::create, ""),
        ("POST", ["images", "load"]) => (transfer::load, ""),
        ("POST", ["images", "prune"]) => (images::prune, ""),
        (_, ["images", name @ .., last]) if !name.is_empty() => {
            let on_image: Option<Handler> = match (method, *last) {
                ("GET", "json") => Some(images::inspect),
                ("GET", "history") => Some(images::history),
                ("GET", "get") => Some(transfer::save),
                ("POST", "tag") => Some(images::tag),
                ("POST", "push") => Some(transfer::push),
                _ => None,
            };
            return match (on_image, method) {
                (Some(handler), _) => Some((handler, name.join("/"))),
                (None, "DELETE") => Some((images::remove, parts[1..].join("/"))),
                (None, _) => None,
            };
        }
        ("DELETE", ["images", name]) => (images::remove, name),
        ("GET", ["distribution", name @ .., "json"]) if !name.is_empty() => {
            return Some((refused::distribution, name.join("/")));
        }
        ("GET", ["networks"]) => (networks::list, ""),
        ("POST", ["networks", "create"]) => (networks::create, ""),
        ("POST", ["networks", "prune"]) => (networks::prune, ""),
        ("GET", ["networks", id]) => (networks::inspect, id),
        ("DELETE", ["networks", id]) => (networks::remove, id),
        ("POST", ["networks", id, "connect"]) => (networks::connect, id),
        ("POST", ["networks", id, "disconnect"]) => (networks::disconnect, id),
        ("GET", ["volumes"]) => (volumes::list, ""),
        ("POST", ["volumes", "create"]) => (volumes::create, ""),
        ("POST", ["volumes", "prune"]) => (volumes::prune, ""),
        ("GET", ["volumes", name]) => (volumes::inspect, name),
        ("DELETE", ["volumes", name]) => (volumes::remove, name),
        (_, ["build", ..] | ["session"] | ["grpc"]) => (refused::build, ""),
        (
            _,
            [
                "swarm" | "services" | "nodes" | "tasks" | "secrets" | "configs",
                ..,
            ],
        ) => (refused::swarm, ""),
        ("GET", ["plugins", name @ .., "json"]) if !name.is_empty() => {
            return Some((refused::plugin, name.join("/")));
        }
        (_, ["plugins", ..]) => (refused::plugins, ""),
        _ => return None,
    };
    Some((handler, target.to_owned()))
}

fn on_container(action: &str) -> Option<Handler> {
    Some(match action {
        "start" => containers::start,
        "stop" => containers::stop,
        "restart" => containers::restart,
        "kill" => containers::kill,
        "rename" => containers::rename,
        "pause" => containers::pause,
        "unpause" => containers::unpause,
        "resize" => containers::resize,
        "update" => containers::update,
        "wait" => streams::wait,
        "attach" => streams::attach,
        "exec" => exec::create,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: Method, path: &str) -> String {
        find(&method, path).unwrap().target
    }

    #[test]
    fn versions_are_optional_and_bounded() {
        assert_eq!(find(&Method::GET, "/_ping").unwrap().version, Version(51));
        assert_eq!(
            find(&Method::GET, "/v1.24/_ping").unwrap().version,
            Version(24)
        );
        let old = find(&Method::GET, "/v1.23/info").unwrap_err();
        assert_eq!(old.status, 400);
        assert!(old.message.starts_with("client version 1.23 is too old."));
        let new = find(&Method::GET, "/v1.52/info").unwrap_err();
        assert_eq!(
            new.message,
            "client version 1.52 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(find(&Method::GET, "/v2/info").unwrap_err().status, 400);
        assert_eq!(find(&Method::GET, "/volumes/x").unwrap().target, "x");
    }

    #[test]
    fn names_of_images_may_have_slashes() {
        for (path, name) in [
            ("/v1.51/images/a/json", "a"),
            ("/images/localhost:5000/a/b:1/json", "localhost:5000/a/b:1"),
            ("/images/a%2Fb/history", "a/b"),
        ] {
            assert_eq!(target(Method::GET, path), name);
        }
        assert_eq!(target(Method::DELETE, "/images/a/b:1"), "a/b:1");
        assert_eq!(target(Method::DELETE, "/images/json"), "json");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [
            "/",
            "",
            "/nope",
            "/containers",
            "/containers/x/nope",
            "/%ff",
            "/images//",
        ] {
            assert_eq!(find(&Method::GET, path).unwrap_err().status, 404, "{path}");
        }
        assert_eq!(
            find(&Method::GET, &"/a".repeat(1000)).unwrap_err().status,
            404
        );
        assert_eq!(
            find(&Method::GET, &"a".repeat(10_000)).unwrap_err().status,
            414
        );
    }

    #[test]
    fn archives_are_not_kept_in_memory() {
        let body = |method, path| find(&method, path).unwrap().body;
        assert_eq!(body(Method::PUT, "/containers/x/archive"), Body::Archive);
        assert_eq!(body(Method::POST, "/images/load"), Body::Archive);
        assert_eq!(body(Method::POST, "/containers/x/attach"), Body::Streams);
        assert_eq!(body(Method::POST, "/containers/create"), Body::Document);
    }
}
