"""The identity of a connection's peer: its names, its address."""

import ssl
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, ip_address, ip_network
from types import MappingProxyType
from typing import Any, Final

# The names of kinds of alternative names, as ssl and as grpc call them.
_KINDS: Final[Mapping[str, str]] = MappingProxyType({"URI": "peer_uri", "DNS": "peer_dns", "email": "peer_email"})
INSECURE: Final[Mapping[str, Iterable[bytes]]] = MappingProxyType({})


def auth_context(ssl_object: ssl.SSLObject | None) -> Mapping[str, Iterable[bytes]]:
    """Returns grpc's properties of a connection: the transport's kind, and names of the peer's certificate."""
    if ssl_object is None:
        return INSECURE
    properties: dict[str, list[bytes]] = {
        "transport_security_type": [b"ssl"],
        "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
    }
    certificate: Mapping[str, Any] = ssl_object.getpeercert() or {}
    for relative_name in certificate.get("subject", ()):
        for key, value in relative_name:
            if key == "commonName":
                properties.setdefault("x509_common_name", []).append(value.encode())
    for kind, value in certificate.get("subjectAltName", ()):
        properties.setdefault("x509_subject_alternative_name", []).append(value.encode())
        if kind in _KINDS:
            properties.setdefault(_KINDS[kind], []).append(value.encode())
    raw = ssl_object.getpeercert(binary_form=True)
    if raw:
        properties["x509_pem_cert"] = [ssl.DER_cert_to_PEM_cert(raw).encode()]
    return MappingProxyType(properties)


def certificate_names(properties: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """Returns the names of the peer's certificate: URIs, DNS names, mail addresses, then the other alternative names.

    The common name counts only where there is no alternative name, as for servers (RFC 6125, 6.4.4).
    """
    names: dict[str, None] = {}
    for key in (*_KINDS.values(), "x509_subject_alternative_name"):
        names |= {value.decode("utf-8", "replace"): None for value in properties.get(key, ())}
    if not names:
        names = {value.decode("utf-8", "replace"): None for value in properties.get("x509_common_name", ())}
    return tuple(names)


def identity_key(properties: Mapping[str, Iterable[bytes]]) -> str | None:
    """Returns the name of the property that identifies the peer, as grpc chooses it."""
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        if key in properties:
            return key
    return None


def peer_name(name: Any) -> str:
    """Returns the peer of a socket as grpc writes it: `ipv4:1.2.3.4:5`, `ipv6:[::1]:5`, `unix:`."""
    if isinstance(name, tuple) and len(name) >= 2:
        return f"ipv6:[{name[0]}]:{name[1]}" if ":" in name[0] else f"ipv4:{name[0]}:{name[1]}"
    return "unix:" if name is not None else "unknown"


def peer_address(name: Any) -> str:
    """Returns the address that connections are counted by; empty for sockets that have none.

    It is an IPv4 address or an IPv6 /64 network, which one host may own whole.
    """
    if not (isinstance(name, tuple) and len(name) >= 2):
        return ""
    address = ip_address(str(name[0]).partition("%")[0])
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((int(address), 64), strict=False))
