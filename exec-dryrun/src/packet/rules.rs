//! The ruleset, read as the kernel reads it: hook by hook, chain by chain, rule by rule.

use std::net::IpAddr;

use mydocker_core::{
    Chain, EtherType, Expression, Family, Field, Hook, Kind, LinkName, Mac, Protocol, Rule,
    Ruleset, Table, TableFamily, Value, Verdict,
};

use super::{Loss, Wires};

/// A packet of a connection on its way, and what the kernel keeps beside it.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// The interface it came in by.
    pub(super) iif: Option<LinkName>,
    /// The interface it leaves by.
    pub(super) oif: Option<LinkName>,
    /// The MAC address it comes from, if a container sent it.
    pub(super) mac: Option<Mac>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: Protocol,
    /// The destination's.
    pub(super) port: u16,
    pub(super) mark: u32,
    /// The connection's destination was rewritten.
    pub(super) dnatted: bool,
    /// It answers a packet that was let through.
    pub(super) answers: bool,
}

/// Where a chain leaves a packet.
enum End {
    Accepted,
    /// At its end, or returned.
    Through,
    Dropped(Loss),
}

impl Wires<'_> {
    /// Whether a packet passes a hook of both kinds of chain, rewritten as they say.
    pub(super) fn pass(
        &self,
        family: TableFamily,
        hook: Hook,
        packet: &mut Packet,
    ) -> Result<(), Loss> {
        let tables = self.ruleset.iter().flat_map(|ruleset| &ruleset.tables);
        for table in tables.filter(|table| table.family == family) {
            for chain in hooked(table, hook) {
                // Translations are decided by the first packet of a connection.
                if packet.answers && kind(chain) == Some(Kind::Nat) {
                    continue;
                }
                if let End::Dropped(loss) = self.walk(table, chain, packet) {
                    return Err(loss);
                }
            }
        }
        Ok(())
    }

    fn walk(&self, table: &Table, chain: &Chain, packet: &mut Packet) -> End {
        for rule in &chain.rules {
            if !rule
                .when
                .iter()
                .all(|e| self.holds(table.family, e, packet))
            {
                continue;
            }
            match rule.then {
                Verdict::Accept => return End::Accepted,
                Verdict::Pass => {
                    packet.mark |= Ruleset::PASSED;
                    return End::Accepted;
                }
                Verdict::Drop => return End::Dropped(dropped(table, chain, rule)),
                Verdict::Return => return End::Through,
                Verdict::Jump(name) => {
                    let to = table.chains.iter().find(|chain| chain.name == name);
                    match to.map_or(End::Through, |to| self.walk(table, to, packet)) {
                        End::Through => {}
                        end => return end,
                    }
                }
                Verdict::Masquerade => {
                    packet.source = self.masquerade(packet).unwrap_or(packet.source);
                    return End::Accepted;
                }
                Verdict::DnatByMap(of, fields, map) => {
                    let ours = Family::of(packet.destination) == of;
                    let found = ours.then(|| self.find(table.family, fields, map, packet));
                    if let Some([Value::Address(address), Value::Port(port)]) =
                        found.flatten().as_deref()
                    {
                        (packet.destination, packet.port) = (*address, *port);
                        packet.dnatted = true;
                        return End::Accepted;
                    }
                }
                Verdict::SetDestination6ByMap(fields, map) => {
                    let found = self.find(table.family, fields, map, packet);
                    if let Some([Value::Address(address)]) = found.as_deref() {
                        packet.destination = *address;
                    }
                }
                Verdict::SetDestination6ToLoopback => {
                    packet.destination = std::net::Ipv6Addr::LOCALHOST.into();
                }
            }
        }
        End::Through
    }

    fn holds(&self, family: TableFamily, expression: &Expression, packet: &Packet) -> bool {
        let loopback = |field, of| match read(field, packet) {
            Some(Value::Address(address)) => Family::of(address) == of && address.is_loopback(),
            _ => false,
        };
        let unspecified = |field, of| match read(field, packet) {
            Some(Value::Address(address)) => Family::of(address) == of && address.is_unspecified(),
            _ => false,
        };
        let readable = |fields: &[Field]| fields.iter().all(|f| read(*f, packet).is_some());
        match *expression {
            Expression::In(fields, set) => self.find(family, fields, set, packet).is_some(),
            // What is not there is neither in nor out.
            Expression::NotIn(fields, set) => {
                readable(fields) && self.find(family, fields, set, packet).is_none()
            }
            Expression::Is(field, number) => self.number(field, packet) == Some(number),
            Expression::IsNot(field, number) => {
                let known = self.number(field, packet);
                known.is_some_and(|known| known != number)
            }
            Expression::Loopback4(field) => loopback(field, Family::V4),
            Expression::Loopback6(field) => loopback(field, Family::V6),
            Expression::Unspecified4(field) => unspecified(field, Family::V4),
            Expression::Unspecified6(field) => unspecified(field, Family::V6),
            Expression::ToThisHost => self.is_hosts(packet.destination),
            Expression::Established | Expression::Reply => packet.answers,
            Expression::Dnatted => packet.dnatted,
            Expression::Passed => packet.mark & Ruleset::PASSED != 0,
            Expression::Unpassed => packet.mark & Ruleset::PASSED == 0,
            // What answers a call from there ends at the host, and so does its walk here.
            Expression::BegunByLoopback6 => false,
            Expression::Carries(carried) => match carried {
                EtherType::Ipv4 => packet.source.is_ipv4(),
                EtherType::Ipv6 => packet.source.is_ipv6(),
                EtherType::Arp => false,
            },
            Expression::Icmpv6Type(_) | Expression::IsIcmpv6 => false,
        }
    }

    /// A field that is a number, if the packet has it: the group of an interface.
    fn number(&self, field: Field, packet: &Packet) -> Option<u32> {
        let link = match field {
            Field::Iifgroup => packet.iif,
            Field::Oifgroup => packet.oif,
            _ => None,
        };
        link.map(|link| self.groups.get(&link).copied().unwrap_or_default())
    }

    /// What a set or map has for the concatenated fields of a packet; of a set, nothing but that.
    fn find(
        &self,
        family: TableFamily,
        fields: &[Field],
        set: &'static str,
        packet: &Packet,
    ) -> Option<Vec<Value>> {
        let wanted: Option<Vec<Value>> = fields.iter().map(|f| read(*f, packet)).collect();
        let wanted = wanted?;
        let fits = |held: Value, wanted: &Value| match (held, wanted) {
            (Value::Subnet(net), Value::Address(address)) => net.contains(address),
            (held, wanted) => held == *wanted,
        };
        let elements = self.elements.get(&(family, set))?;
        let element = elements.iter().find(|element| {
            let mut keys = element.key().zip(&wanted);
            keys.all(|(held, wanted)| fits(held, wanted))
        })?;
        Some(element.data().collect())
    }
}

/// The base chains of a hook, in the order a packet meets them.
fn hooked(table: &Table, hook: Hook) -> Vec<&Chain> {
    let mut chains: Vec<(i32, &Chain)> = table
        .chains
        .iter()
        .filter_map(|chain| match chain.base {
            Some((_, at, priority)) if at == hook => Some((priority, chain)),
            Some(_) | None => None,
        })
        .collect();
    chains.sort_by_key(|(priority, _)| *priority);
    chains.into_iter().map(|(_, chain)| chain).collect()
}

fn kind(chain: &Chain) -> Option<Kind> {
    chain.base.map(|(kind, _, _)| kind)
}

fn dropped(table: &Table, chain: &Chain, rule: &Rule) -> Loss {
    Loss::Dropped {
        table: format!("{} {}", table.family, table.name),
        chain: chain.name,
        rule: rule.to_string(),
    }
}

/// A field of a packet, if it has it.
fn read(field: Field, packet: &Packet) -> Option<Value> {
    let of = |address: IpAddr, family| {
        (Family::of(address) == family).then_some(Value::Address(address))
    };
    // No interface has the empty name, which is in no set, and neither is this one.
    let link = |link: Option<LinkName>| Some(Value::Link(link.unwrap_or(LinkName::LOOPBACK)));
    match field {
        Field::Iifname => link(packet.iif),
        Field::Oifname => link(packet.oif),
        Field::Source(family) => of(packet.source, family),
        Field::Destination(family) => of(packet.destination, family),
        Field::L4Proto => Some(Value::Protocol(packet.protocol)),
        Field::DestinationPort => Some(Value::Port(packet.port)),
        Field::SourceMac => packet.mac.map(Value::Mac),
        Field::ArpSourceMac
        | Field::ArpSource
        | Field::Advertised
        | Field::Iifgroup
        | Field::Oifgroup => None,
    }
}
