//! `--network`: a network, or Docker's long form `name=NETWORK,alias=NAME,ip=ADDRESS,…`.

use engine::options::{Network, Place};

use super::{machine, names};

/// A network that is named on the command line, and what is asked for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Which; `None` is the default one.
    pub network: Option<Network>,
    /// What the long form asks for.
    pub place: Place,
}

/// Why a value is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The network.
    #[error(transparent)]
    Network(#[from] machine::Error),
    /// An address or a name.
    #[error(transparent)]
    Name(#[from] names::Error),
    /// Not KEY=VALUE.
    #[error(
        "invalid field {0}: the long form is name=NETWORK and further KEY=VALUE, with commas between"
    )]
    Field(String),
    /// A key that there is not.
    #[error("invalid field key {0}: name, alias, ip, mac-address and gw-priority can be given")]
    Key(String),
    /// Not a number.
    #[error("invalid gw-priority {0:?}: a whole number")]
    Priority(String),
    /// No network.
    #[error("network name/id is not specified: name=NETWORK")]
    NoName,
}

/// A network.
pub fn attachment(text: &str) -> Result<Attachment, Error> {
    if !text.contains('=') {
        return Ok(Attachment {
            network: machine::network(text)?,
            place: Place::default(),
        });
    }
    let mut place = Place::default();
    let mut name = None;
    for field in text.split(',') {
        let parts = field.split_once('=');
        let (key, value) = parts.ok_or_else(|| Error::Field(field.to_owned()))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => name = Some(value),
            "alias" => place.aliases.push(names::alias(value)?),
            "ip" => place.address = names::ipv4(value)?,
            "mac-address" => place.mac = names::mac(value)?,
            "gw-priority" => place.gw_priority = priority(value)?,
            other => return Err(Error::Key(other.to_owned())),
        }
    }
    Ok(Attachment {
        network: machine::network(name.ok_or(Error::NoName)?)?,
        place,
    })
}

/// `--gw-priority`
pub fn priority(text: &str) -> Result<i32, Error> {
    text.parse().map_err(|_| Error::Priority(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_named_alone_or_with_what_is_asked_for_there() {
        let named = |name: &str| Some(Network::Named(name.into()));
        let short = attachment("app").unwrap();
        assert_eq!(
            (short.network, short.place),
            (named("app"), Place::default())
        );
        let text =
            "name=app,alias=db,alias=data,ip=10.5.0.9,mac-address=02:42:ac:11:00:02,gw-priority=-3";
        let long = attachment(text).unwrap();
        assert_eq!(long.network, named("app"));
        let expected = Place {
            address: Some([10, 5, 0, 9].into()),
            mac: Some([2, 0x42, 0xac, 0x11, 0, 2]),
            aliases: vec!["db".into(), "data".into()],
            gw_priority: -3,
            ..Place::default()
        };
        assert_eq!(long.place, expected);
        assert_eq!(attachment("alias=db"), Err(Error::NoName));
        assert_eq!(attachment("name=a,x"), Err(Error::Field("x".into())));
        assert_eq!(
            attachment("name=a,driver-opt=x=y"),
            Err(Error::Key("driver-opt".into()))
        );
        assert_eq!(
            attachment("name=a,gw-priority=high"),
            Err(Error::Priority("high".into()))
        );
        assert!(matches!(attachment("name=a,ip=::1"), Err(Error::Name(_))));
        assert!(matches!(attachment("name=host"), Err(Error::Network(_))));
    }
}
