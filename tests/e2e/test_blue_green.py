"""Blue-green rollouts on a real gateway: no call is lost in a flip, a bad version goes back, a good one stays."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import models
from tests.e2e.calls import stub
from tests.e2e.conftest import connect
from tests.e2e.product import Product, until
from tests.e2e.test_rollouts import LIMIT_S, Load, apply, index, named

PREVIEW = {"metadata": {"x-gateway-preview": {"exact": "1"}}}
QUICK = {"guardrails": [{"kind": "errors", "passBelow": "5%"}]}


@pytest.fixture(scope="module")
def flipping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp("flipping")
    repository = directory / "models"
    for model, second in {"failing": 8, "shadowed": 8, "equal": 1000}.items():
        for version, content in enumerate((models.fragile(1000), models.fragile(second)), start=1):
            models.write_version(repository, model, str(version), content)
    (directory / "routes").mkdir()
    product = Product(directory, repository, "--routes-dir", str(directory / "routes"))
    yield product.start()
    product.stop()


def route(model: str, **plan: object) -> str:
    fields = {"active": "blue", "preview": "green", "previewMatch": PREVIEW, "analysis": QUICK, **plan}
    spec = {"arms": {"blue": {"version": "1"}, "green": {"version": "2"}}, "strategy": {"blueGreen": fields}}
    return json.dumps({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": model}, "spec": spec})


def rollout(product: Product, model: str) -> dict[str, object]:
    """The rollout as it is shown; before the judge has seen the route there is none."""
    done = product.cli("rollout", "show", model, "-o", "json")
    shown: dict[str, object] = json.loads(done.stdout) if done.exit_code == 0 else {"phase": "", "told": ""}
    return shown


def previewed(product: Product, model: str) -> str:
    """The arm that answers who asks for the preview."""
    with connect(product) as channel:
        request = named(model, index)(1)
        _, done = stub(channel).ModelInfer.with_call(request, timeout=20, metadata=[("x-gateway-preview", "1")])
        return str(dict(done.trailing_metadata())["x-gateway-arm"])


def drift(product: Product, model: str) -> list[str]:
    """What events say of the model's file."""
    events = [json.loads(line) for line in product.page("/events?follow=false").splitlines() if line]
    told = ("route.drifted", "route.settled")
    return [one["type"] for one in events if one["type"] in told and one.get("subject") == model]


def operations(product: Product, model: str) -> list[tuple[str, str]]:
    listed = json.loads(product.cli("routes", "history", model, "-o", "json").stdout)
    return [(entry["operation"], entry["actor"]) for entry in listed][:-1]


def test_a_bad_version_is_flipped_back_by_itself(flipping: Product, tmp_path: Path) -> None:
    apply(flipping, tmp_path, route("failing", promote="manual", postPromotion={"watch": "1h"}))
    with Load(flipping, "failing", named("failing", index)) as load:
        until(lambda: "waits for gateway promote" in str(rollout(flipping, "failing")["told"]), LIMIT_S, "the judge")
        until(lambda: load.answers["blue", "OK"] > 400, LIMIT_S, "what the old version shows")
        assert previewed(flipping, "failing") == "green"
        assert load.answers["green", "OK"] == 0
        assert flipping.cli("promote", "failing").exit_code == 0
        until(lambda: rollout(flipping, "failing")["phase"] == "stopped", LIMIT_S, "the flip back")
        failed, before = load.answers["green", "INTERNAL"], load.answers["blue", "OK"]
        until(lambda: load.answers["blue", "OK"] > before + 200, LIMIT_S, "calls after it")
    assert load.answers["green", "INTERNAL"] <= failed + 1
    assert set(load.answers) == {("blue", "OK"), ("green", "OK"), ("green", "INTERNAL")}
    assert [one for one, _ in operations(flipping, "failing")] == ["abort", "promote"]
    assert operations(flipping, "failing")[0] == ("abort", "judge")
    assert "failed while it was watched: errors" in str(rollout(flipping, "failing")["told"])


def test_a_bad_version_is_found_in_the_shadow_and_answers_nobody(flipping: Product, tmp_path: Path) -> None:
    apply(flipping, tmp_path, route("shadowed", promote="auto", prePromotion={"shadow": "50%", "for": "30s"}))
    with Load(flipping, "shadowed", named("shadowed", index)) as load:
        until(lambda: rollout(flipping, "shadowed")["phase"] == "stopped", LIMIT_S, "the verdict")
    assert set(load.answers) == {("blue", "OK")}
    assert "failed: errors: canary " in str(rollout(flipping, "shadowed")["told"])


def test_a_good_version_is_flipped_to_and_stays_and_no_call_is_lost(flipping: Product, tmp_path: Path) -> None:
    plan = {
        "promote": "auto",
        "prePromotion": {"shadow": "50%", "for": "1s", "minEvents": 200},
        "postPromotion": {"watch": "2s"},
    }
    apply(flipping, tmp_path, route("equal", **plan))
    with Load(flipping, "equal", named("equal", index)) as load:
        until(lambda: rollout(flipping, "equal")["phase"] == "promoted", LIMIT_S, "the end of the watch")
        for arm in ("blue", "green"):
            before = load.answers[arm, "OK"]
            done = flipping.cli("flip", "equal", "--arm", arm)
            assert done.exit_code == 0, done.output
            until(lambda arm=arm, before=before: load.answers[arm, "OK"] > before + 50, LIMIT_S, arm)  # type: ignore[misc]
    assert {code for _, code in load.answers} == {"OK"}
    until(lambda: drift(flipping, "equal") == ["route.drifted"], LIMIT_S, "a route that no file has")
    (flipping.directory / "routes" / "equal.json").write_text(route("equal", **plan))
    assert flipping.cli("diff", "-f", str(flipping.directory / "routes")).exit_code == 0
    until(lambda: drift(flipping, "equal") == ["route.drifted", "route.settled"], LIMIT_S, "the file to agree")
    status = json.loads(flipping.cli("routes", "get", "equal", "-o", "json").stdout)
    assert status["spec"]["strategy"]["blueGreen"]["active"] == "blue"  # as it was applied
