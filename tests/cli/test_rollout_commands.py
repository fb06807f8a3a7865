"""gateway plan and gateway rollout for canaries that move by themselves, as they are typed."""

import json
import re
from pathlib import Path

import pytest

from gateway.rollout.controller import RolloutController
from gateway.rollout.rollout_store import RolloutStore
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.route_reader import RouteReader
from tests.api.routes import route
from tests.api.test_control_rollouts import NoHand
from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")


def rolled() -> RouteDocument:
    steps = [{"weight": "5%", "hold": "10m"}, {"weight": "50%", "hold": "20m", "approval": ["bob"]}]
    arms = {"stable": {"version": "1"}, "canary": {"version": "2"}}
    return route(arms, {"canary": {"steps": steps, "analysis": {}}})


async def test_a_plan_says_what_each_step_finds(shell: Shell) -> None:
    file = shell.write("draft.yaml", rolled())
    text = await shell.done("plan", "-f", file, "--requests-per-second", "500", "--error-rate", "0.1%")
    assert re.search(r"1 +5% +10 min +[\d.]+ times the error rate +\d+", text)
    assert "at 500 requests a second, of which 0.10% fail" in text
    assert "the rollout takes 30 min at least" in text
    value = await shell.value("plan", "-f", file, "--requests-per-second", "0.001", "--error-rate", "0.1")
    assert [step["blind"] for step in value["rollout"]["steps"]] == [True, True]
    silent = await shell.done("plan", "-f", file)
    assert "what its steps can find out is not known: give --requests-per-second" in silent
    given = await shell.done("plan", "-f", file, "--requests-per-second", "500")
    assert re.search(r"of which [\d.]+% fail \((assumed|none of)", given)
    wrong = await shell.run("plan", "-f", file, "--error-rate", "many")
    assert (wrong.exit_code, "--error-rate: 'many' is not a percentage" in wrong.stderr) == (2, True)


async def test_a_rollout_is_listed_shown_and_steered(shell: Shell) -> None:
    store = shell.worker.store
    await store.link.call("DEL", store.keys.rollouts, store.keys.judge)
    assert "no rollout was ever begun" in await shell.done("rollout", "list")
    result = await shell.run("rollout", "show", "affine")
    assert (result.exit_code, "has no rollout" in result.stderr) == (1, True)
    await shell.worker.apply(rolled())
    await RolloutController(RolloutStore(store, RouteReader(store)), NoHand(), "test").step()
    assert re.search(r"affine +ramping +1 of 2 +1 <- 2 ", await shell.done("rollout", "list"))
    text = await shell.done("rollout", "show", "affine")
    assert re.search(r"errors +nodata +0 of 0 +0 of 0 +0 to inf", text)
    assert "ramping" in await shell.done("status")
    assert "paused by" in await shell.done("rollout", "pause", "affine", "--reason", "sales day")
    [state] = await shell.value("rollout", "list")
    assert state["paused_by"]
    await shell.done("rollout", "resume", "affine")
    refused = await shell.run("rollout", "approve", "affine")
    assert (refused.exit_code, "needs no approval" in refused.stderr) == (1, True)
    second = await shell.run(
        "routes",
        "apply",
        "-f",
        shell.write(
            "other.yaml", route({"stable": {"version": "1"}, "canary": {"version": "3"}}, {"canary": {"weight": "5%"}})
        ),
    )
    assert (second.exit_code, "a rollout of version 2 is running" in second.stderr) == (1, True)
    await shell.done("rollout", "abort", "affine", "--reason", "complaints")
    await RolloutController(RolloutStore(store, RouteReader(store)), NoHand(), "test").step()
    assert (await shell.value("rollout", "show", "affine"))["told"] == "complaints"
    await shell.done("rollout", "retry", "affine")
    await store.link.call("DEL", store.keys.rollouts, store.keys.judge)  # other tests apply what they please


async def test_a_diff_compares_what_was_applied_and_ends_as_kubectl_does(shell: Shell) -> None:
    files = str(Path(shell.write("routes/affine.yaml", rolled())).parent)
    absent = await shell.run("diff", "-f", files)
    assert (absent.exit_code, "spec.arms.canary.version" in absent.stdout) == (1, True)
    assert "step 1 of 2" in await shell.done("apply", "-f", files, "--override")
    await shell.done("promote", "affine")
    assert "what was applied is what the files say" in await shell.done("diff", "-f", files, "--prune")
    told = await shell.value("routes", "get", "affine")
    assert (told["status"]["step"], told["status"]["steps"]) == (2, 2)
    again = shell.directory / "again.json"
    again.write_text(json.dumps(told))
    assert await shell.done("diff", "-f", str(again)) == "1 document: what was applied is what the files say\n"
    await shell.done("kill", "affine", "--reason", "incident")
    value = await shell.run("diff", "-f", files, "-o", "json")
    paths = {one["path"] for one in json.loads(value.stdout)["differences"]}
    assert (value.exit_code, paths) == (1, {"spec.killSwitch"})
    only = str(Path(shell.write("others/other.yaml", route({"a": {"version": "1"}}, {"pinned": {"arm": "a"}}))).parent)
    assert "affine" in (await shell.run("diff", "-f", only, "--prune")).stdout
    assert (await shell.run("diff", "-f", f"{only}/other.yaml", "--prune")).exit_code == 2
    await shell.done("routes", "delete", "affine", "--override")
