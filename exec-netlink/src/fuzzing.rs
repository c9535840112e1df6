//! Every decoder of what the kernel says, over bytes that no kernel said: a way in for fuzzing, and
//! no part of the interface.

use mydocker_core::{Address, Footprint, Instance, Object, Op};

use crate::netlink::{Message, messages, verdict};
use crate::observe::{self, Look};
use crate::{address, conntrack, legacy, link, listeners, nft, route};

/// Reads a datagram as every kind of answer that we ever wait for.
pub fn datagram(bytes: &[u8]) {
    let messages: Vec<Message<'_>> = messages(bytes).collect();
    for message in &messages {
        // Errors are answers, too.
        let _ = verdict(message);
        conntrack::fuzz(message);
        listeners::fuzz(message);
    }
    nft::fuzz(&messages);
    links(&messages);
}

/// Reads links, addresses and routes, and what they come to.
fn links(messages: &[Message<'_>]) {
    let payloads = || messages.iter().map(|message| message.payload);
    let look = || Look {
        instance: Instance::DEFAULT,
        all: payloads().filter_map(link::Seen::decode).collect(),
        addresses: payloads().filter_map(address::Seen::decode).collect(),
        routes: payloads().filter_map(route::Seen::decode).collect(),
        settings: Vec::new(),
    };
    let all: Footprint = observe::fuzz(&look(), &mut look());
    for object in all {
        // Whatever was read can be said.
        assert!(!Op::Del(object).to_string().is_empty());
    }
}

/// Writes an op as the messages that carry it out. What can't be written is refused in words.
pub fn written(op: &Op) {
    let written = match op.object() {
        Object::Bridge(bridge) => Ok(link::bridge(bridge)),
        Object::Veth(veth) => Ok(link::veth(veth, None)),
        Object::Address(Address { address, .. }) => {
            let delete = address::delete(1, *address);
            delete.map_or_else(|| Ok(address::add(1, *address)), Ok)
        }
        Object::Route(route) => route::add(1, route).and(route::delete(1, route)),
        object => {
            nft::fuzz_op(object);
            return;
        }
    };
    match written {
        Ok(request) => assert!(!request.datagram().is_empty()),
        Err(error) => assert!(!error.detail.is_empty()),
    }
}

/// Reads entries of iptables-legacy of both families, which begin at the first of two numbers and
/// have their policy at the second.
pub fn legacy(bytes: &[u8]) {
    legacy::fuzz(bytes);
}
