//! Rows of the tables, as they are written: JSON.

use std::path::Path;

use mydocker_core::{Endpoint, NetworkRecord, PORTS_MAX, PortBinding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Result, damaged};

/// What a row says.
pub(in crate::store) fn parse<T: DeserializeOwned>(path: &Path, row: &[u8]) -> Result<T> {
    serde_json::from_slice(row).map_err(|error| damaged(path, 0, error.to_string()))
}

#[derive(Deserialize, Serialize)]
pub(in crate::store) struct NetworkRow {
    pub(in crate::store) record: NetworkRecord,
    /// How many endpoints are on it.
    pub(in crate::store) endpoints: usize,
}

/// An endpoint whose ports take no more room than one does, if they follow each other: whoever writes its
/// neighbour reads it and writes it again.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub(in crate::store) struct EndpointRow(pub(in crate::store) Endpoint);

#[derive(Deserialize, Serialize)]
pub(in crate::store) struct Packed {
    /// The endpoint, but for ports that follow.
    pub(in crate::store) endpoint: Endpoint,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::store) runs: Vec<Run>,
}

/// Ports of which each is one more than the one before, on both sides.
#[derive(Deserialize, Serialize)]
pub(in crate::store) struct Run {
    pub(in crate::store) first: PortBinding,
    pub(in crate::store) count: usize,
}

impl Run {
    /// The port that comes `number` after the first.
    fn port(&self, number: usize) -> Option<PortBinding> {
        let number = u16::try_from(number).ok()?;
        Some(PortBinding {
            host_port: self.first.host_port.checked_add(number)?,
            container_port: self.first.container_port.checked_add(number)?,
            ..self.first.clone()
        })
    }
}

impl From<EndpointRow> for Packed {
    fn from(EndpointRow(mut endpoint): EndpointRow) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for port in endpoint.ports.drain(..) {
            match runs.last_mut() {
                Some(run) if run.port(run.count).as_ref() == Some(&port) => run.count += 1,
                _ => runs.push(Run {
                    first: port,
                    count: 1,
                }),
            }
        }
        Self { endpoint, runs }
    }
}

impl TryFrom<Packed> for EndpointRow {
    type Error = &'static str;

    fn try_from(Packed { mut endpoint, runs }: Packed) -> std::result::Result<Self, Self::Error> {
        for run in runs {
            if run.count > PORTS_MAX - endpoint.ports.len().min(PORTS_MAX) {
                return Err("it has more ports than an endpoint may have");
            }
            for number in 0..run.count {
                let port = run.port(number);
                endpoint
                    .ports
                    .push(port.ok_or("it has a port above 65535")?);
            }
        }
        Ok(Self(endpoint))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn endpoint(ports: &Value) -> Value {
        let endpoint = json!({
            "network": "n", "container": "c", "netns": "/run/netns/c", "ifname": "eth0", "host_link": "mdv0",
            "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.2/24"], "rank": 0, "default_route": true,
            "ports": ports,
        });
        json!({ "endpoint": endpoint })
    }

    fn port(host_port: u16, container_port: u16) -> Value {
        json!({
            "host_ip": "0.0.0.0", "host_port": host_port, "container_port": container_port, "protocol": "tcp",
        })
    }

    fn packed(row: &EndpointRow) -> Value {
        serde_json::to_value(row).unwrap()
    }

    #[test]
    fn ports_that_follow_each_other_are_one() {
        let ports: Vec<Value> = (1000..6000)
            .map(|number| port(number, number - 920))
            .collect();
        let row: EndpointRow = serde_json::from_value(endpoint(&ports.into())).unwrap();
        assert_eq!(row.0.ports.len(), 5000);
        let packed = packed(&row);
        assert_eq!(packed["runs"].as_array().unwrap().len(), 1);
        assert!(packed.to_string().len() < 1000, "{packed}");
        let again: EndpointRow = serde_json::from_value(packed).unwrap();
        assert_eq!(again.0, row.0);
    }

    #[test]
    fn what_was_not_written_is_refused() {
        let row = |host: u16, count: usize, runs: usize| {
            let run = json!({ "first": port(host, 80), "count": count });
            let mut row = endpoint(&json!([]));
            row["runs"] = vec![run; runs].into();
            serde_json::from_value::<EndpointRow>(row)
        };
        assert_eq!(row(65_000, 536, 1).unwrap().0.ports.len(), 536);
        assert!(row(65_000, 537, 1).is_err(), "65536 is no port");
        assert!(row(1, usize::MAX, 1).is_err());
        assert!(row(1, 60_000, 5).is_err(), "too many ports");
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(
            ports in prop::collection::vec((1_u16..5, 1_u16..5, prop::bool::ANY), 0..20),
        ) {
            let ports: Vec<Value> = ports
                .iter()
                .map(|(host, inside, last)| port(host + if *last { 65_530 } else { 0 }, *inside))
                .collect();
            let row: EndpointRow = serde_json::from_value(endpoint(&ports.into())).unwrap();
            let again: EndpointRow = serde_json::from_value(packed(&row)).unwrap();
            prop_assert_eq!(again.0, row.0);
        }
    }
}
