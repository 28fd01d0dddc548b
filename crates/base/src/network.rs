//! Networks of addresses, as operators write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Whether a host, as it stands in addresses, is this machine alone: `localhost` or a loopback address, in
/// brackets or not.
pub fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    /// How many leading bits its addresses share.
    bits: u32,
}

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => masked_v4(address, self.bits) == first,
            (IpAddr::V6(first), IpAddr::V6(address)) => masked_v6(address, self.bits) == first,
            _ => false,
        }
    }

    /// What one party can be taken to have: a single IPv4 address, or the /64 network that an IPv6
    /// address is in, whose other addresses cost nothing.
    pub fn of_one_party(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { first: address.into(), bits: 32 },
            IpAddr::V6(address) => Self { first: masked_v6(address, 64).into(), bits: 64 },
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither an IP address nor a network such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(wrong());
        }
        let first = match address {
            IpAddr::V4(address) => masked_v4(address, bits).into(),
            IpAddr::V6(address) => masked_v6(address, bits).into(),
        };
        Ok(Self { first, bits })
    }
}

fn masked_v4(address: Ipv4Addr, bits: u32) -> Ipv4Addr {
    (address.to_bits() & u32::MAX.checked_shl(32 - bits).unwrap_or(0)).into()
}

fn masked_v6(address: Ipv6Addr, bits: u32) -> Ipv6Addr {
    (address.to_bits() & u128::MAX.checked_shl(128 - bits).unwrap_or(0)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_share_its_bits() {
        assert!(within("10.0.0.0/8", "10.255.1.2"));
        assert!(!within("10.0.0.0/8", "11.0.0.0"));
        assert!(within("10.1.2.3/8", "10.0.0.1"), "the bits behind the mask do not count");
        assert!(within("192.0.2.7", "192.0.2.7") && !within("192.0.2.7", "192.0.2.8"));
        assert!(within("192.0.2.0/25", "192.0.2.127") && !within("192.0.2.0/25", "192.0.2.128"));
        assert!(within("0.0.0.0/0", "203.0.113.9") && !within("0.0.0.0/0", "::1"));
        assert!(within("fd00::/8", "fdff::1") && !within("fd00::/8", "fe80::1"));
        assert!(within("::/0", "2001:db8::1") && within("::1", "::1"));
        assert!(within("10.0.0.0/8", "::ffff:10.0.0.1"), "an IPv4 address that comes over IPv6 is the same one");
    }

    #[test]
    fn invalid_networks_are_rejected() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "example.com", "10.0.0.0/-1", "1.2.3.4/8/9"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one_party() {
        let party = |text: &str| Network::of_one_party(text.parse().unwrap());
        assert_eq!(party("2001:db8::1"), party("2001:db8::ffff:1"));
        assert_ne!(party("2001:db8::1"), party("2001:db8:0:1::1"));
        assert_ne!(party("192.0.2.1"), party("192.0.2.2"));
        assert_eq!(party("192.0.2.1"), party("::ffff:192.0.2.1"));
    }
}
