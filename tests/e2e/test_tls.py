"""The gateway on an address that other hosts can reach, behind certificates that change while it runs."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import trustme

from gateway.pb import inference_pb2 as pb
from gateway.pb.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.product import Product, command, until

SEEN_S = 30.0


def written(directory: Path, name: str, certificate: trustme.LeafCert) -> tuple[str, str]:
    """The paths of a certificate's file and its key's."""
    chain, key = directory / f"{name}.pem", directory / f"{name}.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    return str(chain), str(key)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def client(authority: trustme.CA, directory: Path) -> dict[str, str]:
    """What the command line is told of TLS."""
    certificate, key = written(directory, "client", authority.issue_cert("operator"))
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    return {"--tls-ca": str(directory / "ca.pem"), "--tls-cert": certificate, "--tls-key": key}


def served_by(authority: trustme.CA, directory: Path, not_after: datetime | None = None) -> tuple[str, str]:
    return written(directory, "server", authority.issue_cert("127.0.0.1", not_after=not_after))


def words(options: dict[str, str], *left_out: str) -> list[str]:
    return [word for pair in options.items() if pair[0] not in left_out for word in pair]


def events(product: Product, kind: str) -> list[dict[str, object]]:
    lines = product.page("/events?follow=false").splitlines()
    return [event["data"] for event in map(json.loads, lines) if event["type"] == kind]


@pytest.fixture(scope="module")
def guarded(
    start_product: Callable[..., Product], authority: trustme.CA, directory: Path, client: dict[str, str]
) -> Iterator[Product]:
    """A gateway that asks everybody for a certificate. Its workers are the same from its start to its end."""
    certificate, key = served_by(authority, directory)
    files = {"--tls-certificate": certificate, "--tls-key": key, "--tls-client-ca": client["--tls-ca"]}
    product = start_product("tls", "--host", "0.0.0.0", *words(files))
    workers = [child["pid"] for child in product.children("worker")]
    yield product
    assert [child["pid"] for child in product.children("worker")] == workers
    product.stop()


@pytest.fixture
def channel(guarded: Product, authority: trustme.CA, client: dict[str, str]) -> Iterator[grpc.Channel]:
    """A connection from before anything changes."""
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), Path(client["--tls-key"]).read_bytes(), Path(client["--tls-cert"]).read_bytes()
    )
    with grpc.secure_channel(guarded.server, credentials) as opened:
        assert is_ready(opened)
        yield opened


def is_ready(channel: grpc.Channel) -> bool:
    stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    return bool(stub.ServerReady(pb.ServerReadyRequest(), timeout=10).ready)


def test_only_who_shows_a_certificate_is_served(guarded: Product, client: dict[str, str]) -> None:
    product = guarded
    assert "grpcs://" in product.banner
    done = product.cli("models", *words(client))
    assert (done.exit_code, "AVAILABLE" in done.stdout) == (0, True), done.stderr
    refused = product.cli("models", "--tls-ca", client["--tls-ca"])
    assert (refused.exit_code, "no gateway answers" in refused.stderr) == (3, True)
    refused = product.cli("models", *words(client, "--tls-key"))
    assert (refused.exit_code, "need each other" in refused.stderr) == (2, True)

    for line in product.banner.split("Try next")[1].split("\n\n")[0].splitlines()[1:]:
        follow = ["--no-follow"] if " log tail " in line else []
        hint = command(*line.split()[1:], *follow)
        assert hint.returncode == 0, hint.stderr


def test_a_renewed_certificate_is_shown_without_a_restart(
    guarded: Product, channel: grpc.Channel, authority: trustme.CA, directory: Path, client: dict[str, str]
) -> None:
    expiries = gauges(guarded, "gateway_tls_not_after_seconds")
    served_by(authority, directory, datetime(2090, 1, 1, tzinfo=UTC))
    until(lambda: events(guarded, "tls.renewed"), SEEN_S, "the new certificate in every worker")
    renewed = gauges(guarded, "gateway_tls_not_after_seconds")
    assert len(renewed) == 2
    assert renewed != expiries
    assert set(renewed) == {datetime(2090, 1, 1, tzinfo=UTC).timestamp()}
    assert guarded.cli("models", *words(client)).exit_code == 0
    assert is_ready(channel)


# Waits until each worker has looked at the files; what it makes of them is in tests/rpc/test_server_certificate.py.
@pytest.mark.long
def test_an_expired_certificate_does_not_take_the_place_of_a_sound_one(
    guarded: Product, channel: grpc.Channel, authority: trustme.CA, directory: Path, client: dict[str, str]
) -> None:
    served_by(authority, directory, datetime(2001, 1, 1, tzinfo=UTC))
    [told] = until(lambda: events(guarded, "tls.refused"), SEEN_S, "the expired certificate being refused")
    assert "expired 2001-01-01" in str(told["reason"])
    until(lambda: gauges(guarded, "gateway_tls_trouble") == [1.0, 1.0], SEEN_S, "both workers refusing it")
    assert guarded.cli("models", *words(client)).exit_code == 0
    assert is_ready(channel)


def gauges(product: Product, name: str) -> list[float]:
    return [value for sample, value in product.metrics().items() if sample.startswith(f"{name}{{")]
