"""The product on a store of its own rights: the users that docs/redis.md publishes, and the events of what is done."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.routing.store.store_script import library
from tests.e2e.product import Product, until
from tests.routing.live import admin_of
from tests.routing.test_store_users import published
from tests.valkey import Valkey

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@contextmanager
def receiving() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of a receiver that refuses its first call, and what it then took."""
    calls: list[bytes] = []
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            calls.append(body)
            if len(calls) > 1:
                taken.append(json.loads(body))
            self.send_response(503 if len(calls) == 1 else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", taken
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
async def test_the_product_needs_no_more_rights_than_are_published(
    valkey: Valkey, start_product: Callable[..., Product], tmp_path: Path
) -> None:
    async with admin_of(valkey.url) as admin:
        for words in published():
            await admin.call(*words)
        await admin.call("FUNCTION", "LOAD", "REPLACE", library())
    secret = tmp_path / "secret"
    secret.write_text("sixteen bytes at least")
    url = f"{valkey.url}?username=gateway-control&password=control-password"
    with receiving() as (hook, taken):
        product = start_product(
            "guarded", "--redis-url", url, "--webhook-url", hook, "--webhook-secret-file", str(secret)
        )
        example = str(EXAMPLES / "ab.yaml")
        for line in (f"routes apply -f {example} --wait", "routes get digits", "routes history digits", "routes list"):
            done = product.cli(*line.split())
            assert done.exit_code == 0, done.stderr
        assert "refused permission" not in product.events()
        _dies(product)
        until(lambda: "route.applied" in {one["type"] for one in taken}, 20, "the event of a route")
        until(lambda: any(one["data"].get("reason") == "killed by SIGKILL" for one in taken), 20, "a worker's death")
        kinds = {json.loads(line)["type"] for line in product.page("/events?follow=false").splitlines()}
        assert {"route.applied", "version.ready", "worker.state"} <= kinds
        assert product.metrics()['gateway_webhook_total{outcome="retried"}'] >= 1
        product.stop()


def _dies(product: Product) -> None:
    """A worker is killed, and another one serves in its place."""
    pid = product.children("worker")[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(
        lambda: (
            [c["state"] for c in product.children("worker")] == ["READY"] * 2
            and product.children("worker")[0]["pid"] != pid
        ),
        30,
        "another worker in its place",
    )
