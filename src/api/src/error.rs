//! Failures as Docker's clients read them: a status and `{"message": …}`.

use engine::image::store::DeleteError;
use engine::protocol::chain;
use engine::{Kind, images, prepare};
use serde_json::json;

/// Why a request fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// For a person; some clients parse it, so that it is in Docker's words where Docker has some.
    pub message: String,
}

impl Failure {
    /// With this status.
    pub fn new(status: u16, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
        }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(400, message)
    }

    /// Something that hull does not have.
    pub fn not_built(what: &str) -> Failure {
        Failure::new(501, format!("{what} is not built yet"))
    }

    /// There is no such image. As Docker has it, a name without a tag means `latest`.
    pub fn no_image(name: &str) -> Failure {
        let last = name.rsplit('/').next().unwrap_or_default();
        let tag = match last.contains([':', '@']) {
            true => "",
            false => ":latest",
        };
        Failure::new(404, format!("No such image: {name}{tag}"))
    }

    /// The body.
    pub fn body(&self) -> Vec<u8> {
        json!({"message": self.message}).to_string().into_bytes()
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Failure {
        let status = match &error {
            engine::Error::Image(error) => return image(error),
            error => error.kind().http_status(),
        };
        let message = match error.kind() {
            // Clients make 126 of Go's words for these.
            Kind::CommandNotExecutable => chain(&error)
                .replace("Permission denied", "permission denied")
                .replace("Is a directory", "is a directory")
                .replace("Not a directory", "not a directory"),
            _ => chain(&error),
        };
        Failure::new(status, message)
    }
}

impl From<images::Error> for Failure {
    fn from(error: images::Error) -> Failure {
        image(&error)
    }
}

impl From<engine::image::Error> for Failure {
    fn from(error: engine::image::Error) -> Failure {
        image(&images::Error::Image(error))
    }
}

impl From<engine::image::store::Error> for Failure {
    fn from(error: engine::image::store::Error) -> Failure {
        image(&images::Error::Store(error))
    }
}

fn image(error: &images::Error) -> Failure {
    use engine::image::store::Error as Store;
    match error {
        images::Error::Absent(name) => Failure::no_image(name),
        images::Error::Name { .. } => Failure::invalid("invalid reference format"),
        images::Error::Store(Store::NotFound { what })
        | images::Error::Delete(DeleteError::Store(Store::NotFound { what })) => {
            Failure::no_image(what)
        }
        images::Error::Store(Store::Ambiguous { .. }) => Failure::new(404, chain(error)),
        images::Error::Change(_) => Failure::invalid(chain(error)),
        images::Error::Delete(
            DeleteError::InUse { .. }
            | DeleteError::NameInUse { .. }
            | DeleteError::Store(Store::SeveralNames { .. }),
        ) => Failure::new(409, chain(error)),
        // One for another platform is not here, to whoever wants to run it.
        images::Error::Foreign { .. } => Failure::new(404, chain(error)),
        _ => Failure::new(500, chain(error)),
    }
}

impl From<prepare::Error> for Failure {
    fn from(error: prepare::Error) -> Failure {
        let status = match &error {
            prepare::Error::NoNetwork(_) => 404,
            prepare::Error::Install(_) | prepare::Error::Json(_) => 500,
            _ => 400,
        };
        Failure::new(status, chain(&error))
    }
}

/// The code that a front end reports of a start that failed so.
pub(crate) fn start_code(kind: Kind) -> u8 {
    match kind {
        Kind::CommandNotFound => 127,
        // Docker's for everything else that keeps a process from executing.
        _ => 126,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_09_errors_are_messages_in_dockers_words() {
        let failure = Failure::no_image("nosuch:latest");
        assert_eq!(failure.status, 404);
        assert_eq!(
            String::from_utf8(failure.body()).unwrap(),
            r#"{"message":"No such image: nosuch:latest"}"#
        );
        assert_eq!(
            Failure::not_built("/build").message,
            "/build is not built yet"
        );
    }
}
