"""Which addresses a skill may reach: disguises, names that mix, ports of other services, what settings allow."""

from __future__ import annotations

import pytest

from protocol.errors import NotAllowed, UsageError
from workers.address import Allowed, allowed_by, is_public, parse_allowed, reach


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.88.99.1", "198.18.0.1", "203.0.113.1",
        "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::7f00:1", "::a9fe:a9fe", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1",
        "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "fc00::1", "fd00::1", "fe80::1", "fec0::1",
        "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_addresses_in_disguise_are_looked_into(address: str) -> None:
    assert not is_public(address)


NAMES = {"site": ["93.184.216.34"], "mixed": ["93.184.216.34", "10.0.0.1"], "nas": ["192.168.1.9"], "none": []}


def resolve(host: str, port: int) -> list[str]:
    return NAMES.get(host, [host])


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    assert reach("site", 443, Allowed(), resolve) == ["93.184.216.34"]
    with pytest.raises(NotAllowed, match=r"10\.0\.0\.1"):
        reach("mixed", 443, Allowed(), resolve)
    with pytest.raises(OSError, match="no address"):
        reach("none", 443, Allowed(), resolve)


@pytest.mark.parametrize("port", [22, 25, 1, 1023, 6000, 6667, 10080])
def test_ports_of_other_services_are_refused(port: int) -> None:
    with pytest.raises(NotAllowed, match="port"):
        reach("site", port, Allowed(), resolve)
    assert reach("site", port, parse_allowed([f"site:{port}"]), resolve)


@pytest.mark.parametrize(
    ("allow", "host", "port", "good"),
    [
        ("nas", "nas", 80, True),
        ("nas", "NAS.", 8080, True),
        ("nas", "nas", 22, False),
        ("nas:22", "nas", 22, True),
        ("nas:22", "nas", 80, False),
        ("nas", "192.168.1.9", 80, False),
        ("192.168.0.0/16", "nas", 80, True),
        ("192.168.0.0/16", "10.0.0.1", 80, False),
        ("[::1]:8080", "::1", 8080, True),
        ("[::1]:8080", "::1", 8081, False),
        ("127.0.0.1", "127.0.0.1", 8080, True),
    ],
)
def test_settings_allow_hosts_and_networks(allow: str, host: str, port: int, good: bool) -> None:
    names = {**NAMES, "NAS.": ["192.168.1.9"]}
    allowed = parse_allowed([allow])
    if good:
        assert reach(host, port, allowed, lambda name, _: names.get(name, [name]))
    else:
        with pytest.raises(NotAllowed):
            reach(host, port, allowed, lambda name, _: names.get(name, [name]))


def test_setting_comes_as_a_list_or_as_words() -> None:
    assert allowed_by({}) == Allowed()
    assert allowed_by({"ASTERISM_HTTP__ALLOW": '["nas", "10.0.0.0/8"]'}) == allowed_by(
        {"ASTERISM_HTTP__ALLOW": "nas, 10.0.0.0/8"}
    )
    for bad in ("[1", "10.0.0.0/99", "nas:99999"):
        with pytest.raises(UsageError):
            allowed_by({"ASTERISM_HTTP__ALLOW": bad})
