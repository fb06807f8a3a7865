"""What the configuration says of callers: options that need each other, and addresses that need proofs."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.errors import InvalidArgument
from gateway.runtime.config_parser import load, parse

CERTIFICATES = Path(__file__).parents[1] / "rpc" / "certificates"
TLS = {"tls-certificate": str(CERTIFICATES / "server.pem"), "tls-key": str(CERTIFICATES / "server.key")}
JWT = {"jwt-issuer": "https://issuer.example", "jwt-audience": "gateway", "jwt-keys": "https://issuer.example/keys"}
OPEN = {"host": "0.0.0.0"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (OPEN, "nothing protects the gateway"),
        (OPEN | TLS, "nobody has to say who he is"),
        (OPEN | {"access-tokens": "tokens"}, "tokens could be read on their way"),
        (OPEN | JWT, "tokens could be read on their way"),
        ({"access-roles": "roles.yaml"}, "nobody can prove who he is: give access-tokens, jwt-keys or tls-client-ca"),
        ({"jwt-issuer": "x"}, "jwt-issuer, jwt-audience and jwt-keys need each other"),
        (JWT | {"jwt-keys": "http://issuer.example/keys"}, "an https:// URL without user and password"),
        (JWT | {"jwt-keys": "https://a:b@issuer.example/keys"}, "an https:// URL without user and password"),
        (JWT | {"jwt-keys": "ftp://issuer.example/keys"}, "an https:// URL without user and password"),
        ({"control-port": 8001}, "control-port 8001 is grpc-port as well"),
        ({"control-port": 9000, "control-socket": "control.sock"}, "exclude each other"),
    ],
    ids=str,
)
def test_what_excludes_or_needs_each_other(options: Mapping[str, object], said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(options, {}, {})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        OPEN | TLS | {"access-tokens": "tokens"},
        OPEN | TLS | JWT,
        OPEN | TLS | {"tls-client-ca": "ca.pem"},
        OPEN | TLS | {"tls-client-ca": "ca.pem", "access-roles": "roles.yaml"},
        OPEN | {"insecure": True},
        {"access-tokens": "tokens"},
        JWT | {"jwt-keys": "http://127.0.0.1:9/keys"},
        JWT | {"jwt-keys": "keys.json"},
    ],
    ids=str,
)
def test_what_is_protected_may_be_reached(options: Mapping[str, object]) -> None:
    config = parse(options, {}, {})
    assert config.access.configured is bool({"access-tokens", "access-roles", "jwt-keys"} & options.keys())


def test_the_metrics_port_has_no_tls_and_that_is_said() -> None:
    config = parse(OPEN | TLS | {"access-tokens": "tokens"}, {}, {})
    assert any("metrics-port 8002 has no TLS" in warning for warning in config.warnings)


def test_the_metrics_port_may_stay_on_this_host_and_needs_proof_where_it_alone_is_reached() -> None:
    guarded = OPEN | TLS | {"access-tokens": "tokens"}
    kept = parse(guarded | {"metrics-address": "127.0.0.1"}, {}, {})
    assert kept.warnings == ()
    assert (kept.operators_host, kept.elsewhere) == ("127.0.0.1", {"metrics-port": "127.0.0.1"})
    assert parse(guarded, {}, {}).operators_host == "0.0.0.0"
    with pytest.raises(InvalidArgument, match=r"metrics-address is '0\.0\.0\.0', which other hosts can reach"):
        parse({"metrics-address": "0.0.0.0"}, {}, {})
    (warning,) = parse({"metrics-address": "0.0.0.0", "insecure": True}, {}, {}).warnings
    assert warning.startswith("--insecure: everyone who can connect to 0.0.0.0 is an operator")
    with pytest.raises(InvalidArgument, match='metrics-address is "example", allowed: an IP address'):
        parse({"metrics-address": "example"}, {}, {})


def test_files_are_read_before_anything_starts(tmp_path: Path) -> None:
    tokens, roles = tmp_path / "tokens", tmp_path / "roles.yaml"
    with pytest.raises(InvalidArgument, match="access-tokens: cannot be read: No such file"):
        load({"access-tokens": str(tokens)}, {})
    tokens.write_text("oops")
    with pytest.raises(InvalidArgument, match="access-tokens: line 1:"):
        load({"access-tokens": str(tokens)}, {})
    tokens.write_text("")
    roles.write_text("identities: 1")
    with pytest.raises(InvalidArgument, match="access-roles: identities: 1 is not a mapping"):
        load({"access-tokens": str(tokens), "access-roles": str(roles)}, {})
    roles.write_text("")
    assert load({"access-tokens": str(tokens), "access-roles": str(roles)}, {}).access.tokens == tokens
