//! Words of a command line or a request.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ipnet::IpNet;
use mydocker::container::{Id, Volume, parse_memory};
use mydocker::image::ImageName;
use mydocker_core::{
    ContainerName, Driver, ForeignForward, GatewayMode, LinkName, Mac, Netns, NetworkName, NftName,
    PortSpec, Subnet,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No message about a word is longer, however long the word.
const MESSAGE_CHARS_MAX: usize = 1024;

/// Every grammar that a word is parsed by: what parses prints and parses back the same, and what
/// does not is told in few words.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    name::<NetworkName>(text);
    name::<ContainerName>(text);
    name::<LinkName>(text);
    name::<Netns>(text);
    name::<NftName>(text);
    name::<Mac>(text);
    name::<ImageName>(text);
    word::<PortSpec>(text);
    word::<IpNet>(text);
    parsed::<Volume>(text);
    parsed::<Id>(text);
    told(text.parse::<Driver>());
    told(text.parse::<GatewayMode>());
    told(text.parse::<ForeignForward>());
    // It may fail, and must not overflow.
    let _ = parse_memory(text);
    for spec in PortSpec::parse_list(text).into_iter().flatten().take(64) {
        word::<PortSpec>(&spec.to_string());
        assert_ne!((spec.host_port, spec.container_port), (Some(0), 0));
    }
    if let Ok(net) = text.parse() {
        subnet(net);
    }
}

/// What prints as it is parsed.
fn parsed<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    let again = value.to_string().parse::<T>();
    assert!(
        again.is_ok_and(|again| again == value),
        "{text:?} does not read back"
    );
    Some(value)
}

fn told<T, E: Display>(parsed: Result<T, E>) {
    let Err(error) = parsed else {
        return;
    };
    let message = error.to_string();
    assert!(!message.is_empty() && message.chars().count() <= MESSAGE_CHARS_MAX);
    assert!(
        !message.contains(char::is_control),
        "{message:?} has a control character"
    );
}

fn word<T>(text: &str)
where
    T: FromStr<Err: Display> + Display + PartialEq,
{
    parsed::<T>(text);
    told(text.parse::<T>());
}

/// What is the same text in JSON, too: neither way in takes what the other refuses.
fn name<T>(text: &str)
where
    T: FromStr<Err: Display> + Display + PartialEq + Debug + Serialize + DeserializeOwned,
{
    word::<T>(text);
    let json: Result<T, _> = serde_json::from_value(text.into());
    assert_eq!(json.ok(), text.parse().ok());
}

/// A subnet that can be had has a gateway and a container in it.
fn subnet(net: IpNet) {
    let made = Subnet::new(net);
    if let Ok(subnet) = &made {
        let (first, last) = subnet.hosts();
        assert!(first < last && subnet.net.contains(&first) && subnet.net.contains(&last));
        assert_eq!(subnet.gateway, Some(first));
        crate::reads_back(subnet);
    }
    told(made);
}
