"""Where a client connects, and what it refuses to do there."""

import json
from pathlib import Path

import pytest

from gateway.client.channel_target import SERVICE_CONFIG, ChannelTarget, ChannelTls, target_of

ROOT = Path(__file__).parents[2]


def test_the_retries_are_the_published_ones() -> None:
    assert json.loads((ROOT / "docs/examples/service-config.json").read_text()) == SERVICE_CONFIG


@pytest.mark.parametrize(
    ("hosts", "address"),
    [
        (("h:1",), "dns:///h:1"),
        (("unix:/run/x",), "unix:/run/x"),
        (("127.0.0.1:1", "127.0.0.2:2"), "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (("[::1]:1", "[::2]:2"), "ipv6:[::1]:1,[::2]:2"),
    ],
)
def test_addresses_are_in_the_form_of_grpc(hosts: tuple[str, ...], address: str) -> None:
    assert ChannelTarget(hosts).address() == address


def test_addresses_of_both_families_are_refused() -> None:
    with pytest.raises(ValueError, match="IPv6"):
        ChannelTarget(("127.0.0.1:1", "[::1]:1")).address()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"server": []}, "host:port"),
        ({"server": "h"}, "'h' is no host:port"),
        ({"server": "h:0"}, "no host:port"),
        ({"server": "h:1", "tls": ChannelTls(key="k")}, "tls.certificate"),
        ({"server": "h:1", "connections": 0}, "connections"),
        ({"server": "h:1", "token": "t"}, "plain text"),
        ({"server": "h:1", "token": "t t", "insecure": True}, "token"),
    ],
)
def test_what_cannot_work_is_refused_at_once(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        target_of(**({"tls": None, "token": "", "insecure": False, "connections": 1} | arguments))  # type: ignore[arg-type]
