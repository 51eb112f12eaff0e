"""Which addresses a delivery may reach: public ones, and networks that the operator has named.

`ipaddress.is_global` calls several addresses global that lead inside (mapped, tunnelled and reserved
ones), so the deny list here is our own, from the IANA registries of special-purpose addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DENIED_V4 = tuple(
    ipaddress.IPv4Network(n)
    for n in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # a cloud's metadata service behind a public address
    )
)  # fmt: skip
ALLOWED_V6 = ipaddress.IPv6Network("2000::/3")  # the only part of IPv6 that is public unicast
DENIED_V6 = tuple(
    ipaddress.IPv6Network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


LOOKUP_DEADLINE_S = 5.0  # a resolver that hangs is no fault of the receiver


# What some resolvers read as an address: 2130706433, 0x7f.1, 127.1.
NUMERIC_HOST = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*")
DOTS = {ord(dot): "." for dot in "\u3002\uff0e\uff61"}


class BlockedAddress(OSError):
    """The address may not be reached; it is never tried."""


class Egress:
    """Vets addresses and looks names up."""

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in allow)

    def vet(self, address: Address) -> None:
        """Refuse an address that may not be reached."""
        if any(address in network for network in self._allow if network.version == address.version):
            return
        if not is_public(address):
            raise BlockedAddress(f"{address} is not a public address; egress.allow does not name its network")

    def vet_literal(self, host: str) -> None:
        """Refuse a host that is written as an address and may not be reached; names are vetted later.

        What some resolver reads as an address is judged as one: `127.1`, `0x7f.1`, other digits and other dots.
        """
        plain = _plain(host).strip("[]").partition("%")[0].rstrip(".")
        if plain == "localhost" or plain.endswith(".localhost"):
            plain = "127.0.0.1"
        try:
            address = ipaddress.ip_address(plain)
        except ValueError:
            if NUMERIC_HOST.fullmatch(plain):
                text = f"the host {host!r} is neither a name nor an address in its usual form"
                raise BlockedAddress(text) from None
            return
        self.vet(address)

    def vet_dialled(self, address: str) -> None:
        """Refuse what is about to be dialled unless it is an address that may be reached."""
        try:
            self.vet(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            raise BlockedAddress(f"{address!r} is no address") from None

    async def resolve(self, host: str, port: int) -> list[str]:
        """Look a name up and vet every address that it has: one that is refused refuses the name."""
        try:
            async with asyncio.timeout(LOOKUP_DEADLINE_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"{host} could not be looked up in time") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not addresses:
            raise OSError(f"{host} has no address")
        for address in addresses:
            self.vet_dialled(address)
        return addresses


def _plain(host: str) -> str:
    """Write a host in small letters, with the usual digits and dots."""
    text = unicodedata.normalize("NFKC", host).translate(DOTS).lower()
    return "".join(str(unicodedata.decimal(c, c)) for c in text)


def is_public(address: Address) -> bool:
    """Tell whether an address is public unicast, looking through what embeds an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in DENIED_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in ALLOWED_V6 and not any(address in network for network in DENIED_V6)
