"""gateway results, as it is typed: with the history of a real store, and a log of its revisions."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from gateway.cli.client import control
from gateway.cli.results import read_history
from gateway.rollout.results.experiment import RevisionSplit
from gateway.routing.document.document import RouteDocument
from tests.api.routes import pinned, route
from tests.cli.conftest import Shell
from tests.rollout.experiments import Requests, write_requests

pytestmark = pytest.mark.asyncio(loop_scope="session")
ARMS = {"a": {"version": "1"}, "b": {"version": "2"}}
KEY = {"from": ["metadata:x-user-id"]}


def ab_route(a: int = 50, b: int = 50, **plan: object) -> RouteDocument:
    return route(ARMS, {"ab": {"control": "a", "weights": {"a": f"{a}%", "b": f"{b}%"}, **plan}}, key=KEY)


def log(server: str, data_dir: Path, *, lost: float = 0.0) -> list[RevisionSplit]:
    """A log of requests at every revision that splits; of arm b this share is lost."""
    with control(server) as stub:
        history = read_history(stub, "affine")
    rng = np.random.default_rng(0)
    parts = []
    for split in history:
        if split.splits:
            part = Requests(split, rng.integers(0, 1_000_000, size=1000), spread_us=1000)
            kept = (np.array(part.arms()) == "a") | (rng.random(1000) >= lost)
            part.buckets = part.buckets[kept]
            part.features = rng.normal(size=len(part.buckets))
            treated = np.array(part.arms()) == "b"
            part.rewards = rng.normal(size=len(part.buckets)) + 2 * treated
            parts.append(part)
    write_requests(data_dir, parts)
    return history


async def test_results_are_a_table_json_and_a_page(shell: Shell, tmp_path: Path) -> None:
    await shell.worker.apply(pinned())
    await shell.worker.apply(ab_route(80, 20, metrics=[{"name": "reward"}], srm={}))
    await shell.worker.apply(ab_route(metrics=[{"name": "reward"}], srm={}))
    history = await asyncio.to_thread(log, shell.worker.server, tmp_path)
    assert [split.splits for split in history[:3]] == [True, True, False]
    words = ("results", "affine", "--data-dir", str(tmp_path))
    page = tmp_path / "results.html"
    text = await shell.done(*words, "--by", "f.x", "--html", str(page))
    assert "b: b is better: reward" in text
    assert "this holds at every look" in text
    assert "f.x: 1: up to" in text
    assert "so that all hold together" in text
    assert page.read_text().startswith("<!doctype html>")
    value = await shell.value(*words)
    assert value["outcome"] == "better"
    assert [phase["phase"]["shares"] for phase in value["phases"]] == [{"a": 0.8, "b": 0.2}, {"a": 0.5, "b": 0.5}]
    assert value["phases"][0]["phase"]["revisions"] == [history[1].revision]
    newest = await shell.value(*words, "--since", str(history[0].revision))
    assert len(newest["phases"]) == 1
    draft = shell.write("draft.yaml", ab_route(10, 90))
    told = await shell.done(*words, "--policy", draft, "--rule", 'a="f.x" > 100')
    assert "doubly robust" in told
    assert "policy: with this policy the reward would have been" in told
    for wrong in (("--rule", "b=true"), ("--policy", draft, "--rule", "z=true"), ("--policy", draft, "--rule", "b")):
        refused = await shell.run(*words, *wrong)
        assert (refused.exit_code, "--rule" in refused.stderr) == (2, True)
    none = await shell.value(*words, "--window", "2020-01-01")
    assert none["outcome"] == "not known"


async def test_a_broken_split_ends_with_one(shell: Shell, tmp_path: Path) -> None:
    await shell.worker.apply(ab_route())
    await asyncio.to_thread(log, shell.worker.server, tmp_path, lost=0.5)
    result = await shell.run("results", "affine", "--data-dir", str(tmp_path), "-o", "json")
    assert result.exit_code == 1
    assert "do not read these numbers" in result.stderr
    assert json.loads(result.stdout)["outcome"] == "broken"


async def test_what_cannot_be_compared_is_refused(shell: Shell, tmp_path: Path) -> None:
    words = ("results", "affine", "--data-dir", str(tmp_path))
    none = await shell.run("results", "other", "--data-dir", str(tmp_path))
    assert (none.exit_code, "other" in none.stderr) == (1, True), none.output
    await shell.worker.apply(ab_route())
    for wrong, told in (
        (("--html", str(tmp_path / "no" / "x.html")), "there is no folder"),
        (("--by", "a", "--by", "b", "--by", "c", "--by", "d", "--by", "e"), "at most 4 are allowed"),
        (("--window", "soon"), "is no date or time"),
        (("--where", "1;2"), "syntax error"),
    ):
        await asyncio.to_thread((tmp_path / "log" / "lake").mkdir, parents=True, exist_ok=True)
        result = await shell.run(*words, *wrong)
        assert (result.exit_code, told in result.stderr) == (2, True), result.output
