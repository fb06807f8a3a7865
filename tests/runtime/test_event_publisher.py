"""The publisher over a real store and a real receiver: changes and states become events, once, in order."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.backoff import Backoff
from gateway.errors import InvalidArgument
from gateway.runtime.config import Config
from gateway.runtime.config_parser import load, parse
from gateway.runtime.control_process import ControlProcess
from gateway.runtime.event_publisher import EventPublisher
from gateway.runtime.instance import make_directories
from gateway.runtime.operators_port import HttpRequest
from gateway.telemetry.webhooks import DeliveryPolicy
from tests.routing.live import BY, control_of, document, store_of, until
from tests.telemetry.test_webhooks import receiving
from tests.valkey import Valkey

SECRET = "a secret of more than 16 bytes"


def configured(directory: Path, valkey: Valkey, **options: object) -> Config:
    made = parse({"data-dir": directory, "redis-url": valkey.url, **options}, {"GATEWAY_WEBHOOK_SECRET": SECRET}, {})
    make_directories(made)
    return made


def publisher_of(config: Config, instance: str = "run-1") -> EventPublisher:
    policy = DeliveryPolicy(backoff=Backoff(0.001, 0.01))
    return EventPublisher(config, instance, wall_s=lambda: 1.0, draw=lambda: 0.5, policy=policy)


@asynccontextmanager
async def running(publisher: EventPublisher) -> AsyncIterator[None]:
    task = asyncio.create_task(publisher.run())
    try:
        await until(lambda: bool(publisher._changes.cursor))
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def types(publisher: EventPublisher) -> list[str]:
    return [event.type for event in publisher.events.after()[0]]


async def test_every_change_is_told_even_to_a_receiver_that_fails_first(valkey: Valkey, tmp_path: Path) -> None:
    async with receiving(500, 503) as receiver, store_of(valkey.url) as store:
        publisher = publisher_of(configured(tmp_path, valkey, **{"webhook-url": f"http://127.0.0.1:{receiver.port}/"}))
        async with running(publisher):
            control = control_of(store)
            await control.apply(document(share=10), change=BY)
            await control.apply(document(share=20), change=BY)
            await control.rollback("fraud", change=BY)
            await control.delete("fraud", change=BY)
            webhook = publisher.webhook
            assert webhook is not None
            await until(lambda: webhook.counts["delivered"] == 4)
        told = ["route.applied", "route.applied", "route.rolledback", "route.deleted"]
        assert types(publisher) == told
        bodies = [json.loads(body) for _, body in receiver.taken[2:]]
        assert [body["type"] for body in bodies] == told
        assert [body["data"]["revision"] for body in bodies] == [1, 2, 3, 4]
        assert (bodies[2]["data"]["restored_revision"], bodies[2]["subject"]) == (1, "fraud")
        assert (bodies[0]["data"]["actor"], bodies[0]["data"]["reason"]) == (BY.actor, BY.reason)
        counts = dict(publisher.counts())
        assert counts["types"] == {"route.applied": 2, "route.rolledback": 1, "route.deleted": 1}
        assert counts["webhook"] == {"delivered": 4, "retried": 2, "refused": 0, "failed": 0, "dropped": 0}


async def test_a_successor_goes_on_where_the_last_one_stopped(valkey: Valkey, tmp_path: Path) -> None:
    config = configured(tmp_path, valkey)
    ready = {"feed_state": "LIVE", "versions": [{"model": "m", "version": "1", "state": "AVAILABLE"}]}
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await control.apply(document(share=1), change=BY)  # before anybody listened
        first = publisher_of(config)
        async with running(first):
            await control.apply(document(share=10), change=BY)
            await until(lambda: types(first) == ["route.applied"])
            first.observe({0: ready}, ())
        await control.apply(document(share=20), change=BY)
        second = publisher_of(config)
        async with running(second):
            second.observe({0: ready}, ())
            await until(lambda: types(second) == ["route.applied"])
            assert second.events.after()[0][0].data["revision"] == 3
        another_run = publisher_of(config, "run-2")
        another_run.observe({0: ready}, ())
        assert types(another_run) == ["version.ready"]
        await another_run._changes.aclose()


async def test_a_store_that_is_away_or_emptied_stops_no_herald(valkey: Valkey, tmp_path: Path) -> None:
    publisher = publisher_of(configured(tmp_path, valkey))
    async with store_of(valkey.url) as store, running(publisher):
        await control_of(store).apply(document(), change=BY)
        await until(lambda: len(types(publisher)) == 1)
        valkey.kill()
        valkey.wipe()
        valkey.start()
        await until(lambda: publisher._changes.cursor == "0-0")
        await control_of(store).apply(document(share=20), change=BY)
        await until(lambda: len(types(publisher)) == 2)


async def test_events_are_shown_and_counted_on_the_port_for_operators(valkey: Valkey, tmp_path: Path) -> None:
    config = configured(tmp_path, valkey)
    publisher = publisher_of(config)
    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    control.attach(publisher)
    publisher.observe({}, [{"role": "worker", "slot": 0, "state": "READY", "pid": 1}])
    publisher.observe({}, [{"role": "worker", "slot": 0, "state": "WAITING", "pid": 1}])
    page = await publisher.page.answer(HttpRequest("GET", "/events", query={"follow": "false"}))
    first, second = [json.loads(line) for line in page.body.splitlines()]
    assert [one["data"]["state"] for one in (first, second)] == ["READY", "WAITING"]
    assert first["source"].startswith("/gateway/default/")
    metrics = (await control.metrics(HttpRequest("GET", "/metrics", {}))).body.decode()
    assert 'gateway_events_total{type="worker.state"} 2.0' in metrics
    await publisher._changes.aclose()


async def test_a_state_of_drift_that_the_monitor_published_is_told_once(valkey: Valkey, tmp_path: Path) -> None:
    config = configured(tmp_path, valkey)
    config.published_dir.mkdir()
    arm = {"model": "fraud", "version": "2", "arm": "canary", "state": "crit", "rows": 400, "features": []}
    (config.published_dir / "drift.json").write_text(json.dumps({"window": "1h", "arms": [arm]}))
    publisher = publisher_of(config)
    control = ControlProcess(config, "run-1", asyncio.get_running_loop().time)
    control.attach(publisher)
    await control.step()
    await control.step()
    assert types(publisher) == ["drift.state"]
    after = publisher_of(config, "run-2")  # another run of the gateway: what was told stays told
    control.attach(after)
    await control.step()
    assert types(after) == []
    for one in (publisher, after):
        await one._changes.aclose()


def test_a_webhook_needs_a_secret_and_shows_neither_it_nor_its_path(tmp_path: Path) -> None:
    url = {"webhook-url": "https://hooks.example/T0/hidden"}
    with pytest.raises(InvalidArgument, match="needs a secret"):
        load(url, {})
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load({**url, "webhook-secret-file": str(tmp_path / "none")}, {})
    (tmp_path / "secret").write_text(SECRET + "\n")
    from_file = load({**url, "webhook-secret-file": str(tmp_path / "secret")}, {})
    from_environment = load(url, {"GATEWAY_WEBHOOK_SECRET": SECRET})
    assert from_environment.warnings == ()
    assert from_file.events.webhook_secret.strip() == from_environment.events.webhook_secret == SECRET
    for shown in (repr(from_file), str(from_file.dump()), repr(from_environment)):
        assert SECRET not in shown
        assert "hidden" not in shown
    plain = parse({"webhook-url": "http://x/", "redis-url": "rediss://x?ssl_cert_reqs=none"}, {}, {})
    assert [warning.split(":")[0] for warning in plain.warnings] == ["redis-url", "webhook-url"]
    for wrong in ("ftp://x/", "https://", "https://u:p@x/", "https://x:0/", "https://x/ y", "x"):
        with pytest.raises(InvalidArgument, match="webhook-url"):
            parse({"webhook-url": wrong}, {}, {})
