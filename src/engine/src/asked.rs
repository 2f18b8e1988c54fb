//! What was asked for of a container, as it is kept beside its record ([`protocol::record::ContainerConfig::asked`]): what
//! `inspect` prints as Docker's `Config` and `HostConfig`, what `commit` makes an image of, and what `update` changes.

use std::collections::BTreeMap;

use image::Image;
use image::docker::Healthcheck;
use oci_spec::image::Config;
use serde::{Deserialize, Serialize};

use crate::options::mounts::{Form, Source};
use crate::options::{Options, Variable};
use crate::spec;

/// The options and what they came to together with the image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// As the user gave them: `HostConfig`, and the parts of `Config` that no image has.
    pub options: Options,
    /// `Config.Entrypoint`; empty is none.
    pub entrypoint: Vec<String>,
    /// `Config.Cmd`; empty is none.
    pub command: Vec<String>,
    /// `Config.Env`: the user's and the image's, without those that every container gets (HOSTNAME, HOME, TERM).
    pub env: Vec<String>,
    /// `Config.WorkingDir`; empty is `/`.
    pub workdir: String,
    /// `Config.User`; empty is root.
    pub user: String,
    /// `Config.Hostname`.
    pub hostname: String,
    /// `Config.Volumes`: absolute paths.
    pub volumes: Vec<String>,
    /// `Config.ExposedPorts`: `PORT/PROTOCOL`.
    pub exposed_ports: Vec<String>,
    /// `Config.Healthcheck`, the options' and the image's together.
    pub healthcheck: Option<Healthcheck>,
    /// `Config.Shell`.
    pub shell: Option<Vec<String>>,
    /// `Config.StopSignal` where one was named: a signal's number.
    pub stop_signal: Option<i32>,
    /// The image's own labels, which are among the container's: `commit` tells them apart.
    pub image_labels: BTreeMap<String, String>,
}

impl Asked {
    /// What these options and this image come to.
    pub(crate) fn new(
        options: &Options,
        image: &Image,
        hostname: &str,
    ) -> Result<Asked, spec::Error> {
        let config = image.config.config().as_ref();
        let (entrypoint, command) = spec::words(options, config);
        let given = |word: &Option<String>| word.clone().filter(|word| !word.is_empty());
        let of_image = |part: fn(&Config) -> &Option<String>| {
            config
                .and_then(|config| part(config).clone())
                .unwrap_or_default()
        };
        Ok(Asked {
            entrypoint,
            command,
            env: environment(options, config),
            workdir: given(&options.workdir).unwrap_or_else(|| of_image(Config::working_dir)),
            user: given(&options.user).unwrap_or_else(|| of_image(Config::user)),
            hostname: hostname.to_owned(),
            volumes: volumes(options, config)?,
            exposed_ports: exposed(options, config),
            healthcheck: spec::health::merged(options, image),
            shell: image.docker.shell.clone(),
            stop_signal: options
                .stop_signal
                .or_else(|| spec::image_stop_signal(config)),
            image_labels: config
                .and_then(|config| config.labels().clone())
                .unwrap_or_default()
                .into_iter()
                .collect(),
            options: options.clone(),
        })
    }
}

/// `Config.ExposedPorts`: the image's, the user's, and those that are published.
fn exposed(options: &Options, image: Option<&Config>) -> Vec<String> {
    let of_image = image.and_then(|config| config.exposed_ports().clone());
    let published = options.place.publish.iter().map(|publish| &publish.port);
    let ours = options.exposed.iter().chain(published);
    let mut all: Vec<String> = of_image.unwrap_or_default();
    all.extend(ours.map(ToString::to_string));
    all.sort();
    all.dedup();
    all
}

/// `Config.Volumes`: the image's, and the user's without a name.
fn volumes(options: &Options, image: Option<&Config>) -> Result<Vec<String>, spec::Error> {
    let mut volumes = spec::image_volumes(image)?;
    let unnamed = options.mounts.iter().filter(|mount| {
        let is_unnamed = matches!(&mount.source, Source::Volume(volume) if volume.name.is_none());
        is_unnamed && mount.form != Form::Mount
    });
    volumes.extend(unnamed.map(|mount| mount.target.clone()));
    volumes.sort();
    volumes.dedup();
    Ok(volumes)
}

/// `Config.Env`: the user's variables and then those of the image that the user has not set. A name that the user unsets
/// is in neither.
fn environment(options: &Options, image: Option<&Config>) -> Vec<String> {
    let mut env: Vec<(&str, Option<String>)> = Vec::new();
    for variable in &options.env {
        let (name, entry) = match variable {
            Variable::Set(name, value) => (name.as_str(), Some(format!("{name}={value}"))),
            Variable::Unset(name) => (name.as_str(), None),
        };
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = entry,
            None => env.push((name, entry)),
        }
    }
    let of_image = image.and_then(|config| config.env().as_ref());
    for entry in of_image.into_iter().flatten() {
        let name = entry
            .split_once('=')
            .map_or(entry.as_str(), |(name, _)| name);
        if !env.iter().any(|(known, _)| *known == name) {
            env.push((name, Some(entry.clone())));
        }
    }
    env.into_iter().filter_map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_s_environment_comes_first_and_replaces_the_image_s() {
        let image: Config =
            serde_json::from_str(r#"{"Env": ["PATH=/image", "A=1", "B=2"]}"#).unwrap();
        let options = Options {
            env: vec![
                Variable::Set("C".into(), "old".into()),
                Variable::Set("A".into(), "mine".into()),
                Variable::Unset("B".into()),
                Variable::Set("C".into(), "new".into()),
            ],
            ..Options::default()
        };
        assert_eq!(
            environment(&options, Some(&image)),
            ["C=new", "A=mine", "PATH=/image"]
        );
    }

    #[test]
    fn a_document_of_an_earlier_version_is_read_with_defaults() {
        let asked: Asked = serde_json::from_str(
            r#"{"options": {"image": "demo", "entrypoint": "sh"}, "of_tomorrow": 1}"#,
        )
        .unwrap();
        assert_eq!(asked.options.image, "demo");
        assert_eq!(asked.options.entrypoint, Some(vec!["sh".to_owned()]));
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Asked>(&text).unwrap(), asked);
    }

    #[test]
    fn every_kind_of_option_is_read_as_it_was_written() {
        use crate::options::*;
        use protocol::record::{LogConfig, RestartPolicy};

        let options = Options {
            env: vec![
                Variable::Set("A".into(), "1".into()),
                Variable::Unset("B".into()),
            ],
            extra_hosts: [
                HostAddress::Ip("::1".parse().unwrap()),
                HostAddress::Gateway,
            ]
            .map(|address| ExtraHost {
                name: "x".into(),
                address,
            })
            .into(),
            restart: RestartPolicy::OnFailure { max_retries: 3 },
            log: LogConfig::None,
            memory_swap: Some(Swap::Total(7)),
            cpus: Some(crate::size::MilliCpus(1500)),
            cpuset_cpus: Some("0-2".parse().unwrap()),
            ulimits: vec![Ulimit {
                name: "core".into(),
                soft: 0,
                hard: u64::MAX,
            }],
            devices: vec![Device {
                machine_path: "/dev/fuse".into(),
                container_path: "/dev/x".into(),
                access: DeviceAccess::ALL,
            }],
            ipc: Ipc::WithoutShm,
            seccomp: Seccomp::File("/p.json".into()),
            pull: Pull::Never,
            isolation: Isolation::Pod("web".into()),
            network: Some(Network::Bridge),
            boot: Some(Boot::Kernel),
            console_size: Some(protocol::agent::TerminalSize::default()),
            ..Options::default()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
    }
}
