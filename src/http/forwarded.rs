//! The address of a client behind proxies: `X-Forwarded-For`, and the field that succeeds it,
//! `Forwarded` (RFC 7239). Proxies write addresses in many ways: with a port, in brackets, in
//! quotes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::RequestHead;

/// The bits of an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) before the IPv4 address.
const MAPPED_BITS: u8 = 96;

/// Whether one of these networks, which are [`canonical`], has the address.
pub(crate) fn contain(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The network with IPv4-mapped IPv6 addresses as IPv4.
pub(crate) fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(network) if network.prefix_len() >= MAPPED_BITS => network
            .network()
            .to_ipv4_mapped()
            .and_then(|ip| Ipv4Net::new(ip, network.prefix_len() - MAPPED_BITS).ok()),
        _ => None,
    };
    mapped.map_or(network, IpNet::V4)
}

/// The address of the client, for limits and logs. The headers of the request count only if the
/// peer is one of the `trusted` proxies: then it is the right-most hop that is not trusted, or the
/// left-most if all are. A hop that is no address makes the list worthless, and the peer itself is
/// the answer. IPv4-mapped IPv6 addresses compare as IPv4.
///
/// `Forwarded` counts only in requests without `X-Forwarded-For`: most proxies write the latter and
/// pass on what a client wrote in the former.
pub fn client_address(peer: IpAddr, request: &RequestHead, trusted: &[IpNet]) -> IpAddr {
    let field = "x-forwarded-for";
    if request.header(field).is_some() {
        let hops = request.elements(field).map(hop_address);
        return nearest_stranger(peer, hops.rev(), trusted);
    }
    let hops = request.elements("forwarded").map(forwarded_for);
    nearest_stranger(peer, hops.rev(), trusted)
}

/// The first hop behind the peer that is not trusted.
fn nearest_stranger(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    trusted: &[IpNet],
) -> IpAddr {
    let peer = peer.to_canonical();
    let mut client = peer;
    for hop in hops {
        if !contain(trusted, client) {
            break;
        }
        match hop {
            Some(address) => client = address,
            None => return peer,
        }
    }
    client
}

/// The `for` of `for=192.0.2.60;proto=http;by=203.0.113.43`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let is_for = |name: &str| name.trim().eq_ignore_ascii_case("for");
    let (_, value) = pairs.find(|(name, _)| is_for(name))?;
    hop_address(value.trim())
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`, all of
/// them also in quotes.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let quoted = hop
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let hop = quoted.unwrap_or(hop);
    if let Some(literal) = hop.strip_prefix('[') {
        let (address, rest) = literal.split_once(']')?;
        let is_plain = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return address.parse().ok().filter(|_| is_plain).map(to_canonical);
    }
    match hop.split_once(':') {
        Some((address, port)) if is_port(port) => {
            let address = address.parse::<Ipv4Addr>();
            address.ok().map(IpAddr::V4)
        }
        _ => hop.parse().ok().map(to_canonical),
    }
}

fn to_canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A number, or an invented name with an underscore (RFC 7239 section 6).
fn is_port(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(plain),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}
