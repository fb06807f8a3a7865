"""Two gateways with one store, as two hosts have it: one judge for both, whichever process dies, or the store."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.runtime.cpu_quota import cpu_quota
from tests import models
from tests.e2e.product import Product, until
from tests.e2e.test_rollouts import Load, active, apply, document, index, named
from tests.valkey import Valkey

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
LIMIT_S = 120.0
STEPS = [{"weight": "20%", "hold": "4s"}, {"weight": "50%", "hold": "4s"}]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("shared-store") / "store").start()
    yield valkey
    valkey.stop()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, store: Valkey) -> Iterator[tuple[Product, Product]]:
    directory = tmp_path_factory.mktemp("hosts")
    repository = directory / "models"
    for model, last in {"bad": models.fragile(8), "good": models.fragile(1000), "calm": models.fragile(1000)}.items():
        for version, content in enumerate((models.fragile(1000), last), start=1):
            models.write_version(repository, model, str(version), content)
    made = [Product(directory / name, repository, "--redis-url", store.url).launch() for name in ("one", "other")]
    first, second = (product.ready() for product in made)
    yield first, second
    for product in (first, second):
        product.stop()


def entries(product: Product, model: str) -> list[tuple[str, str]]:
    """What was done to the route, oldest first, and by whom."""
    done = product.cli("routes", "history", model, "-o", "json")
    history = json.loads(done.stdout)
    listed = history if isinstance(history, list) else history["revisions"]
    return [(entry["operation"], entry["actor"]) for entry in reversed(listed)]


def told(product: Product, model: str) -> dict[str, object]:
    done = product.cli("rollout", "show", model, "-o", "json")
    shown: dict[str, object] = json.loads(done.stdout) if done.exit_code == 0 else {"phase": "", "step": 0, "id": ""}
    return shown


def cores(shown: dict[str, object]) -> float:
    capacity = shown.get("capacity")
    return float(capacity["cores"]) if isinstance(capacity, dict) else 0.0


def kill_judges(hosts: tuple[Product, Product]) -> None:
    """Both control processes die, whichever of them judges."""
    for product in hosts:
        os.kill(product.children("control")[0]["pid"], signal.SIGKILL)


def test_what_both_gateways_count_is_judged_once(hosts: tuple[Product, Product], tmp_path: Path) -> None:
    apply(hosts[0], tmp_path, document("bad", steps=STEPS))
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(product, "bad", named("bad", index))) for product in hosts]
        for product in hosts:
            until(lambda product=product: active(product, "bad")["shares"] == {"stable": 100}, LIMIT_S, "no share")  # type: ignore[misc]
    assert str(told(hosts[1], "bad")["told"]).startswith("failed: errors: canary ")
    assert entries(hosts[0], "bad") == entries(hosts[1], "bad")
    assert [actor for _, actor in entries(hosts[0], "bad")].count("judge") == 1
    for load in loads:
        assert load.answers["canary", "INTERNAL"] > 0
        assert load.answers["stable", "INTERNAL"] == 0


def test_a_judge_that_dies_in_any_state_has_a_successor(hosts: tuple[Product, Product], tmp_path: Path) -> None:
    apply(hosts[0], tmp_path, document("good", steps=STEPS, after={"watch": "4s"}))
    with Load(hosts[0], "good", named("good", index)) as one, Load(hosts[1], "good", named("good", index)) as other:
        until(lambda: told(hosts[0], "good")["phase"] == "ramping", LIMIT_S, "its beginning")
        begun = told(hosts[0], "good")["id"]
        kill_judges(hosts)
        until(lambda: told(hosts[0], "good")["step"] == 2, LIMIT_S, "the second step")
        until(lambda: cores(told(hosts[0], "good")) == 2 * cpu_quota(), LIMIT_S, "the load of both gateways' workers")
        kill_judges(hosts)
        until(lambda: told(hosts[0], "good")["phase"] == "watching", LIMIT_S, "the promotion")
        kill_judges(hosts)
        until(lambda: told(hosts[0], "good")["phase"] == "promoted", LIMIT_S, "its end")
    assert told(hosts[1], "good")["id"] == begun
    assert [operation for operation, actor in entries(hosts[1], "good") if actor == "judge"] == ["promote", "promote"]
    for load in (one, other):
        assert {code for _, code in load.answers} == {"OK"}


def test_without_the_store_weights_stand_and_the_ramp_goes_on_after_it(
    hosts: tuple[Product, Product], store: Valkey, tmp_path: Path
) -> None:
    steps = [*STEPS, {"weight": "80%", "hold": "4s"}]
    apply(hosts[0], tmp_path, document("calm", steps=steps))
    with Load(hosts[0], "calm", named("calm", index)) as one, Load(hosts[1], "calm", named("calm", index)) as other:
        until(lambda: told(hosts[0], "calm")["step"] == 2, LIMIT_S, "the second step")
        store.stop()
        answered = [sum(load.answers.values()) for load in (one, other)]
        for load, before in zip((one, other), answered, strict=True):
            until(lambda load=load, before=before: sum(load.answers.values()) > before + 1000, LIMIT_S, "serving")  # type: ignore[misc]
            canary = load.answers["canary", "OK"]
            until(lambda load=load, canary=canary: load.answers["canary", "OK"] > canary + 200, LIMIT_S, "the share")  # type: ignore[misc]
        store.start()
        until(lambda: told(hosts[0], "calm")["phase"] == "promoted", LIMIT_S, "its end")
    # One advance at a time, however long nobody judged.
    assert [operation for operation, actor in entries(hosts[0], "calm") if actor == "judge"] == ["promote"] * 3
    for load in (one, other):
        assert {code for _, code in load.answers} == {"OK"}
