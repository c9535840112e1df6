//! What is kept of a container: `<root>/containers/ID/config.json`.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use mydocker_core::ContainerName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    defaults,
    id::Id,
    process::Process,
    spec::{NetworkMode, Spec},
};
use crate::{
    image::{Digest, Image, ImageConfig, Layer, LegacyLayer},
    versioned,
};

/// The format this version writes.
const FORMAT: u32 = 1;

/// A container as it is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Record {
    format: u32,
    /// Its id, also the name of its directories.
    pub id: Id,
    /// Its name, unique.
    pub name: ContainerName,
    /// The id of the image it was made from; none if an earlier version made it.
    #[serde(default)]
    pub image_id: Option<Digest>,
    /// The layers below its own, lowest first.
    #[serde(default)]
    pub layers: Vec<Layer>,
    /// The same, if an earlier version made it.
    #[serde(default, rename = "layer", skip_serializing_if = "Option::is_none")]
    pub legacy_layer: Option<LegacyLayer>,
    /// What its image says of ports and the like; what it says of the program is in the spec.
    #[serde(default)]
    pub image_config: ImageConfig,
    /// What was asked for, with command and host name filled in.
    pub spec: Spec,
    /// When it was made, seconds since 1970.
    pub created_unix_s: u64,
    /// When its program was last started, seconds since 1970; none if it never was.
    #[serde(default)]
    pub started_unix_s: Option<u64>,
    /// When it last ended, seconds since 1970.
    pub finished_unix_s: Option<u64>,
    /// Its state when this was written; [`Record::status`] observes.
    status: Status,
    /// Its first process, as the host sees it.
    pub init: Option<Process>,
    /// The process that watches over it and takes it down when it ends.
    pub supervisor: Process,
    /// How it ended: the program's exit code, or 128 + the signal that killed it.
    pub exit_code: Option<u8>,
    /// [`Attached::info`](super::Attached::info) of its attachment.
    pub endpoints: Value,
    /// What went wrong while it was taken down.
    pub error: Option<String>,
    /// Whether mount, namespace, cgroup and attachments are gone.
    pub torn_down: bool,
}

/// What a container does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is being made.
    Created,
    /// Its first process runs.
    Running,
    /// It has ended.
    Exited,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
        })
    }
}

impl Record {
    /// The record of a container that this process is about to make.
    pub(crate) fn new(id: Id, image: &Image, mut spec: Spec) -> anyhow::Result<Self> {
        let name = spec.name.clone().unwrap_or_else(|| id.to_name());
        defaults::fill(&mut spec, &image.config);
        if spec.command.is_empty() {
            spec.command.push("/bin/sh".to_owned());
        }
        spec.hostname.get_or_insert_with(|| id.as_str().to_owned());
        spec.check()
            .with_context(|| format!("image `{}` asks for what can't be had", image.name))?;
        Ok(Self {
            format: FORMAT,
            id,
            name,
            image_id: Some(image.id),
            layers: image.layers.clone(),
            legacy_layer: None,
            image_config: image.config.clone(),
            spec,
            created_unix_s: now_unix_s(),
            started_unix_s: None,
            finished_unix_s: None,
            status: Status::Created,
            init: None,
            supervisor: Process::current()?,
            exit_code: None,
            endpoints: Value::Null,
            error: None,
            torn_down: false,
        })
    }

    /// What the container does now: observed, not remembered.
    pub fn status(&self) -> Status {
        match self.status {
            Status::Running if self.init_is_alive() => Status::Running,
            Status::Created if self.supervisor.is_alive() => Status::Created,
            Status::Created | Status::Running | Status::Exited => Status::Exited,
        }
    }

    /// Number of the first process, as the host sees it, if it runs.
    pub fn pid(&self) -> Option<i32> {
        self.init
            .as_ref()
            .filter(|init| init.is_alive())
            .map(|init| init.pid)
    }

    /// Whether its supervisor was killed, so that somebody else has to take it down.
    pub fn is_abandoned(&self) -> bool {
        !self.torn_down && !self.supervisor.is_alive()
    }

    /// Whether a network has to be asked to detach it.
    pub(crate) fn is_attached(&self) -> bool {
        self.spec.network == NetworkMode::Attached
    }

    pub(crate) fn init_is_alive(&self) -> bool {
        self.init.as_ref().is_some_and(Process::is_alive)
    }

    /// From here on this process is about to start it once more. How it ended before is kept until it
    /// runs, and so for good if it can't be started.
    pub(crate) fn set_starting(&mut self) -> anyhow::Result<()> {
        // One that was started by a version that did not write that down.
        self.started_unix_s.get_or_insert(self.created_unix_s);
        self.status = Status::Created;
        self.supervisor = Process::current()?;
        self.init = None;
        self.endpoints = Value::Null;
        self.torn_down = false;
        Ok(())
    }

    pub(crate) fn set_running(&mut self) {
        self.status = Status::Running;
        self.started_unix_s = Some(now_unix_s());
        (self.finished_unix_s, self.exit_code, self.error) = (None, None, None);
    }

    pub(crate) fn set_exited(&mut self, exit_code: Option<u8>) {
        self.status = Status::Exited;
        self.exit_code = self.exit_code.or(exit_code);
        self.finished_unix_s.get_or_insert_with(now_unix_s);
    }

    /// As text, for its file.
    pub(crate) fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        versioned::to_json(self, "a container's record")
    }

    /// From the text of its file; refused as a whole if any part is not as we would have written it.
    pub(crate) fn from_json(id: &Id, text: &[u8]) -> anyhow::Result<Self> {
        let record: Self = versioned::from_json(text, FORMAT)?;
        if record.id != *id {
            bail!("it belongs to container {}", record.id);
        }
        match &record.legacy_layer {
            Some(layer) => layer.check()?,
            None if record.layers.is_empty() => bail!("it names no layer"),
            None => {}
        }
        record.spec.check()?;
        Ok(record)
    }
}

fn now_unix_s() -> u64 {
    // A clock before 1970 is shown as 1970.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
pub(crate) fn example() -> Record {
    Record::new(
        "0123456789ab".parse().unwrap(),
        &crate::image::example(),
        Spec::new("box".parse().unwrap()),
    )
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file() {
        let record = example();
        let text = record.to_json().unwrap();
        let read = Record::from_json(&record.id, &text).unwrap();
        assert_eq!(read.to_json().unwrap(), text);
        assert_eq!(read.name.as_str(), "0123456789ab");
        assert_eq!(read.spec.command, ["/bin/sh"]);
    }

    /// As it was before images had several layers.
    #[test]
    fn an_older_record_is_read() {
        let mut value: Value = serde_json::to_value(example()).unwrap();
        let fields = value.as_object_mut().unwrap();
        for new in ["layers", "image_id", "image_config"] {
            fields.remove(new).unwrap();
        }
        for new in ["entrypoint", "user"] {
            fields["spec"].as_object_mut().unwrap().remove(new).unwrap();
        }
        let layer = serde_json::json!({ "image": "box", "version": "0".repeat(16) });
        fields.insert("layer".to_owned(), layer);
        let id = example().id;
        let read = Record::from_json(&id, value.to_string().as_bytes()).unwrap();
        assert_eq!(read.legacy_layer.unwrap().image.as_str(), "box");
        value["layer"]["version"] = "../../../../etc/".into();
        assert!(Record::from_json(&id, value.to_string().as_bytes()).is_err());
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let record = example();
        let text = String::from_utf8(record.to_json().unwrap()).unwrap();
        let dir = format!("\"dir\": \"{}", record.layers[0].dir);
        for (from, to) in [
            ("\"format\": 1", "\"format\": 2"),
            ("0123456789ab", "../../../etc"),
            (dir.as_str(), "\"dir\": \"../../../../etc/"),
            ("\"image\": \"box\"", "\"image\": \"../box\""),
            ("\"workdir\": \"/\"", "\"workdir\": \"..\""),
            ("\"layers\"", "\"lairs\""),
            ("}", ""),
        ] {
            let damaged = text.replace(from, to);
            assert_ne!(damaged, text, "{from}");
            assert!(
                Record::from_json(&record.id, damaged.as_bytes()).is_err(),
                "{from} -> {to}"
            );
        }
        assert!(Record::from_json(&"ba9876543210".parse().unwrap(), text.as_bytes()).is_err());
    }

    #[test]
    fn status_is_observed() {
        let mut record = example();
        assert_eq!(record.status(), Status::Created);
        record.set_running();
        assert_eq!(record.status(), Status::Exited, "no first process");
        record.init = Some(Process::current().unwrap());
        assert_eq!(record.status(), Status::Running);
        record.init = Some(Process {
            start_ticks: 1,
            ..Process::current().unwrap()
        });
        assert_eq!(record.status(), Status::Exited, "the number was reused");
        let (me, boot_id) = (Process::current().unwrap(), "another".to_owned());
        record.init = Some(Process { boot_id, ..me });
        assert_eq!(record.status(), Status::Exited, "the machine was rebooted");
        assert_eq!(record.pid(), None);
        record.set_exited(Some(3));
        record.set_exited(None);
        assert_eq!(
            (record.status(), record.exit_code),
            (Status::Exited, Some(3))
        );
        record.set_starting().unwrap();
        assert_eq!(
            (record.status(), record.exit_code, record.pid()),
            (Status::Created, Some(3), None)
        );
        record.set_running();
        assert_eq!((record.exit_code, record.finished_unix_s), (None, None));
    }
}
