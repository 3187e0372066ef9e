"""Which addresses a webhook may go to: those of the public internet.

A client names the URL, the worker stands inside the operator's network: without this a webhook would be a hand that
reaches metadata services, databases and admin pages. Pure; the networks are IANA's special-purpose registries
(https://www.iana.org/assignments/iana-ipv4-special-registry, …-ipv6-special-registry), written out, since what Python
calls global differs between its versions.

Invariant: of IPv6 only what is listed as public is; what embeds an IPv4 address is refused whatever it embeds.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

PUBLIC_V6 = ip_network("2000::/3")
NETWORKS = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),  # Azure's, at a public address
        ("169.254.0.0/16", "link-local"),  # and the metadata service of most clouds
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/32", "Teredo"),
        ("2001:db8::/32", "for documentation"),
        ("2001::/23", "reserved"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "reserved"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)


def refusal(address: str) -> str | None:
    """Why nothing may be sent to `address`, in a word or three; None: it is public.

    Raises ValueError for what is no address.
    """
    parsed: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])  # an interface's name says nothing more
    for network, what in NETWORKS:
        if parsed in network:
            return what
    if parsed.version == 6 and parsed not in PUBLIC_V6:
        return "reserved"
    return None
