"""Which addresses a delivery may reach (XD18)."""

from __future__ import annotations

import ipaddress

import pytest
from tocsin_server.endpoints.addresses import BlockedAddress, Egress, is_public

INSIDE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::127.0.0.1",
    "::ffff:127.0.0.1", "::ffff:100.64.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:a9fe:a9fe::", "2002:7f00:1::", "3fff::1", "5f00::1",
    "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", INSIDE)
def test_what_leads_inside_is_refused(address: str) -> None:
    with pytest.raises(BlockedAddress):
        Egress([]).vet(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_not(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    Egress([]).vet(ipaddress.ip_address(address))


def test_a_named_network_may_be_reached() -> None:
    Egress(["10.1.0.0/16"]).vet(ipaddress.ip_address("10.1.2.3"))
    with pytest.raises(BlockedAddress):
        Egress(["10.1.0.0/16"]).vet(ipaddress.ip_address("10.2.2.3"))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "017700000001", "127.1", "localhost"])
async def test_a_name_is_vetted_by_what_it_resolves_to(host: str) -> None:
    with pytest.raises(BlockedAddress):
        await Egress([]).resolve(host, 80)
