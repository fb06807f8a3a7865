"""Parts of the running product die under load: who notices, and for how long."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.calls import infer
from tests.e2e.conftest import OWN_CONNECTION, Demo
from tests.e2e.product import Product, until
from tests.e2e.traffic import rest_traffic, traffic
from tests.machine_load import as_loaded

DOCS = Path(__file__).parents[2] / "docs"
SERVICE_CONFIG = (DOCS / "examples" / "service-config.json").read_text()
PINNED = (DOCS / "examples" / "pinned.yaml").read_text()
BACK_WITHIN_S = 5.0
RETRYING = [*OWN_CONNECTION, ("grpc.service_config", SERVICE_CONFIG)]
# A client that meets the socket of a dying process pauses for a second otherwise, and fails its calls meanwhile.
EAGER = [*OWN_CONNECTION, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]


ONE_TRANSPORT = pytest.mark.parametrize("faulty", ["ngh2"], indirect=True)  # what no transport has a part in
# What is the client's own doing, and differs by transport in nothing but the text of the failures.
CLIENTS_PART = pytest.mark.parametrize(
    "faulty", ["ngh2", pytest.param("grpcio", marks=pytest.mark.long)], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=["ngh2", "grpcio"])
def faulty(request: pytest.FixtureRequest, start_product: Callable[..., Product]) -> Iterator[Product]:
    """A gateway of its own, for its processes are killed. Its end must be a clean one all the same.

    Though the compactor has just died, every row is in Parquet then.
    """
    running = start_product(f"faulty-{request.param}", "--transport", request.param)
    yield running
    [compactor] = running.children("compactor")
    os.kill(compactor["pid"], signal.SIGKILL)
    running.stop()
    log = running.data / "log"
    assert list((log / "lake").glob("predictions/*/*/*/*/*.parquet"))
    assert not [path for path in (log / "wal").rglob("*") if path.suffix in (".wal", ".sealed", ".suspect")]


def kill(product: Product, role: str) -> tuple[dict[str, Any], float]:
    """The child of this role after its SIGKILL, READY again, and the seconds that it took."""
    [victim, *_] = product.children(role)
    killed_s = time.monotonic()
    os.kill(victim["pid"], signal.SIGKILL)

    def back() -> list[dict[str, Any]]:
        return [
            child
            for child in product.children(role)
            if child["slot"] == victim["slot"] and child["pid"] != victim["pid"] and child["state"] == "READY"
        ]

    [child] = until(back, 30, f"{role} is back")
    return child, time.monotonic() - killed_s


def ready(product: Product) -> set[int]:
    """The processes of the workers that serve."""
    return {child["pid"] for child in product.children("worker") if child["state"] == "READY"}


def apply(product: Product, version: str) -> int:
    """The exit code of a change of the route."""
    return product.cli("routes", "apply", "-f", "-", text=PINNED.replace('"1"', f'"{version}"')).exit_code


def test_a_killed_worker_is_back_and_only_its_calls_fail(faulty: Product, demo: Demo) -> None:
    with traffic(faulty.server, demo.rows("digits"), EAGER) as calls:
        child, seconds = kill(faulty, "worker")
        assert seconds <= as_loaded(BACK_WITHIN_S)
        assert child["restarts"] == 1
        back_s = time.monotonic()
        calls.wait_for(100)
    assert {outcome.failure for outcome in calls.failures()} <= {"UNAVAILABLE"}
    # One call per connection was under way at most; nobody meets the dead worker after that, but who connects while the
    # kernel is taking it down.
    assert len([outcome for outcome in calls.failures() if "failed to connect" not in outcome.text]) <= 8
    assert calls.failures(since_s=back_s) == []


@CLIENTS_PART
def test_a_client_that_retries_does_not_notice(faulty: Product, demo: Demo) -> None:
    with traffic(faulty.server, demo.rows("digits"), RETRYING) as calls:
        kill(faulty, "worker")
        before = faulty.children("worker")
        for child in before:  # all at once: nobody is left to answer
            os.kill(child["pid"], signal.SIGKILL)
        until(lambda: not ready(faulty) & {child["pid"] for child in before}, 30, "the deaths are known")
        until(lambda: len(ready(faulty)) == len(before), 30, "all are back")
        calls.wait_for(100)
    assert calls.failures() == []


@pytest.mark.parametrize("connect_per_call", [False, True])
def test_a_rolling_restart_is_noticed_by_nobody(faulty: Product, demo: Demo, connect_per_call: bool) -> None:
    before = {child["pid"] for child in faulty.children("worker")}
    rows = demo.rows("digits")
    with (
        rest_traffic(faulty.port("http"), rows) as requests,
        traffic(faulty.server, rows, OWN_CONNECTION, connect_per_call=connect_per_call) as calls,
    ):
        os.kill(faulty.state()["pid"], signal.SIGHUP)

        def renewed() -> bool:
            workers = faulty.children("worker")
            return all(child["state"] == "READY" and child["pid"] not in before for child in workers)

        until(renewed, 60, "every worker is a new one")
        calls.wait_for(100)
        requests.wait_for(50)
    assert calls.failures() == []
    assert requests.failures() == []


@ONE_TRANSPORT
def test_a_killed_valkey_is_back_and_nobody_notices(faulty: Product, demo: Demo) -> None:
    assert apply(faulty, "1") == 0
    with traffic(faulty.server, demo.rows("digits"), OWN_CONNECTION) as calls:
        kill(faulty, "valkey")
        calls.wait_for(100)
        until(lambda: apply(faulty, "2") == 0, 15, "rules can be changed again")
        with grpc.insecure_channel(faulty.server) as channel:
            assert infer(channel, "digits", demo.rows("digits")[0]).version == "2"
    assert calls.failures() == []
    history = faulty.cli("routes", "history", "digits").stdout
    assert history.count("apply") == 2  # what was committed before the kill is still there


@ONE_TRANSPORT
def test_while_valkey_is_away_the_last_rules_serve(faulty: Product, demo: Demo) -> None:
    assert apply(faulty, "1") == 0
    [valkey] = faulty.children("valkey")
    os.kill(valkey["pid"], signal.SIGSTOP)
    try:
        with traffic(faulty.server, demo.rows("digits"), OWN_CONNECTION) as calls:
            refused = faulty.cli("routes", "apply", "-f", "-", text=PINNED.replace('"1"', '"2"'))
            assert (refused.exit_code, refused.stdout) == (1, "")
            assert "UNAVAILABLE" in refused.stderr
            until(lambda: min(_stale_seconds(faulty)) > 1.0, 15, "the metrics tell that the rules are stale")
            with grpc.insecure_channel(faulty.server) as channel:
                assert infer(channel, "digits", demo.rows("digits")[0]).version == "1"
        assert calls.failures() == []
        assert '"ready": true' in faulty.page("/readyz")
    finally:
        os.kill(valkey["pid"], signal.SIGCONT)
    until(lambda: apply(faulty, "2") == 0, 15, "rules can be changed again")
    until(lambda: max(_stale_seconds(faulty)) == 0.0, 15, "the rules are live again")
    with grpc.insecure_channel(faulty.server) as channel:
        assert infer(channel, "digits", demo.rows("digits")[0]).version == "2"


@ONE_TRANSPORT
@pytest.mark.parametrize("role", ["control", "compactor"])
def test_a_killed_helper_process_is_back_and_nobody_notices(faulty: Product, demo: Demo, role: str) -> None:
    with traffic(faulty.server, demo.rows("digits"), OWN_CONNECTION) as calls:
        kill(faulty, role)
    assert calls.failures() == []


def _stale_seconds(product: Product) -> list[float]:
    return [value for name, value in product.metrics().items() if name.startswith("gateway_route_stale_seconds{")]
