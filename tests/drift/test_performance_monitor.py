"""Performance as labels come: from real logs of answers and labels, through the compactor, to metrics."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from gateway.records.worker.sampling import CHOSEN_COPY, Sampling
from tests.drift.labelled import (
    BEGIN_US,
    DAY_US,
    HOUR_US,
    config_of,
    log_answers,
    look,
    metrics,
    report,
    send_labels,
    states,
    values,
    watch,
)
from tests.drift.performance_cases import RNG, draw, pair, save_profile, spread
from tests.e2e.product import until
from tests.telemetry.firing import firing


async def test_metrics_are_those_of_the_rows_that_have_a_label(tmp_path: Path) -> None:
    chances, labels = draw(600)
    moments = spread(600)
    names = await log_answers(tmp_path, moments, {"p": pair(chances)})
    await send_labels(tmp_path, names[:500], labels[:500].tolist(), received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    told, truth = chances[:500].astype(np.float32).astype(float), labels[:500]
    expected = {
        "accuracy": accuracy_score(truth, told >= 0.5),
        "f1": f1_score(truth, told >= 0.5),
        "auc": roc_auc_score(truth, told),
        "log_loss": log_loss(truth, told),
        "brier": brier_score_loss(truth, told),
    }
    assert values(arm, "realised") == pytest.approx(expected, abs=2e-3)
    assert metrics(tmp_path, "gateway_model_metric") == pytest.approx(expected, abs=2e-3)
    assert metrics(tmp_path, "gateway_model_metric_labels") == {"": 500}
    assert metrics(tmp_path, "gateway_model_metric_window_end_seconds") == {"": moments[499] / 1e6}
    bounds = metrics(tmp_path, "gateway_model_metric_bound")
    assert all(bounds[f"{name}/low"] < value < bounds[f"{name}/high"] for name, value in expected.items())
    assert (arm["task"], arm["estimated"]["note"]) == ("classification", "it has no profile")
    assert metrics(tmp_path, "gateway_model_metric_change") == {}
    assert metrics(tmp_path, "gateway_model_metric_state") == {}
    assert metrics(tmp_path, "gateway_model_metric_estimated") == {}


async def test_a_regression_has_the_size_of_its_errors(tmp_path: Path) -> None:
    truth = RNG.normal(100, 20, 300)
    told = (truth + RNG.normal(2, 5, 300)).astype(np.float32)
    names = await log_answers(tmp_path, spread(300), {"price": told})
    await send_labels(tmp_path, names, truth.tolist(), received_us=BEGIN_US + DAY_US)
    errors = told.astype(float) - truth
    expected = {"rmse": np.sqrt((errors**2).mean()), "mae": np.abs(errors).mean(), "bias": errors.mean()}
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert arm["task"] == "regression"
    assert values(arm, "realised") == pytest.approx(expected, rel=1e-3)


async def test_too_few_labels_say_how_many_there_are_and_no_more(tmp_path: Path) -> None:
    chances, labels = draw(400)
    names = await log_answers(tmp_path, spread(400), {"p": pair(chances)})
    await send_labels(tmp_path, names[:199], labels[:199].tolist(), received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert arm["realised"]["note"] == "199 labels, 200 are needed"
    assert (metrics(tmp_path, "gateway_model_metric"), metrics(tmp_path, "gateway_model_metric_labels")) == (
        {},
        {"": 199},
    )
    await send_labels(tmp_path, names[199:200], [1.0], received_us=BEGIN_US + DAY_US)
    assert "accuracy" in values(look(tmp_path, BEGIN_US + DAY_US + HOUR_US), "realised")


async def test_of_a_repeated_label_the_last_one_holds(tmp_path: Path) -> None:
    """By the time that the label is of, not by that of its receipt."""
    chances, _ = draw(300)
    right = (chances >= 0.5).astype(float)
    names = await log_answers(tmp_path, spread(300), {"p": pair(chances)})
    at_us = BEGIN_US + DAY_US
    await send_labels(tmp_path, names, (1 - right).tolist(), received_us=at_us, label_us=at_us)
    assert values(look(tmp_path, at_us), "realised")["accuracy"] == 0.0
    await send_labels(tmp_path, names, right.tolist(), received_us=at_us + 10, label_us=at_us + 5)
    assert values(look(tmp_path, at_us), "realised")["accuracy"] == 1.0
    await send_labels(tmp_path, names[:100], (1 - right[:100]).tolist(), received_us=at_us + 20, label_us=at_us - 5)
    assert values(look(tmp_path, at_us), "realised")["accuracy"] == 1.0


async def test_late_labels_open_the_window_again(tmp_path: Path) -> None:
    """The rows of the day are long in the lake, another process has seen them, and labels come three days later."""
    chances, labels = draw(800)
    names = await log_answers(tmp_path, spread(800), {"p": pair(chances)})
    await send_labels(tmp_path, names[:400], labels[:400].tolist(), received_us=BEGIN_US + DAY_US)
    early = look(tmp_path, BEGIN_US + DAY_US)
    await log_answers(tmp_path, spread(50, day=3), {"p": pair(chances[:50])}, first=800)
    later_us = BEGIN_US + 4 * DAY_US - HOUR_US
    wrong = (chances < 0.5).astype(float)
    await send_labels(tmp_path, names[400:], wrong[400:].tolist(), received_us=later_us)
    late = look(tmp_path, later_us)
    assert (early["realised"]["rows"], late["realised"]["rows"]) == (400, 800)
    before = values(early, "realised")["accuracy"]
    assert values(late, "realised")["accuracy"] == pytest.approx(before / 2, abs=1e-6)


async def test_a_label_that_comes_to_the_lake_before_its_row_is_kept_for_it(tmp_path: Path) -> None:
    chances, labels = draw(300)
    at_us = BEGIN_US + DAY_US
    await send_labels(tmp_path, [f"r{number}" for number in range(300)], labels.tolist(), received_us=at_us)
    worker, monitor = watch(tmp_path, at_us)
    worker.step()
    worker.tend(last=True)
    assert report(tmp_path)["arms"] == []
    await log_answers(tmp_path, spread(300), {"p": pair(chances)})
    assert look(tmp_path, at_us)["realised"]["rows"] == 300
    assert not monitor.failures


async def test_the_window_is_the_newest_day_with_labels_or_as_long_as_it_takes(tmp_path: Path) -> None:
    chances, _ = draw(250)
    names = []
    for day in range(4):
        names.append(await log_answers(tmp_path, spread(250, day=day), {"p": pair(chances)}, first=1000 * day))
    right = (chances >= 0.5).astype(float)
    now_us = BEGIN_US + 4 * DAY_US - HOUR_US
    for day in range(3):  # the labels of the last day are not there yet
        given = right if day == 2 else 1 - right
        await send_labels(tmp_path, names[day], given.tolist(), received_us=now_us)
    arm = look(tmp_path, now_us)
    assert (arm["realised"]["rows"], values(arm, "realised")["accuracy"]) == (250, 1.0)
    assert arm["realised"]["start_s"] * 1e6 == pytest.approx(BEGIN_US + 2 * DAY_US, abs=DAY_US / 200)
    await send_labels(tmp_path, names[3][:150], right[:150].tolist(), received_us=now_us)
    arm = look(tmp_path, now_us)  # 24 h before the newest row with a label
    assert 240 <= arm["realised"]["rows"] <= 255
    assert values(arm, "realised")["accuracy"] == 1.0


async def test_a_fall_is_told_against_the_profile_and_noise_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    save_profile(tmp_path / "a", *draw(2000, rng=rng))
    save_profile(tmp_path / "b", *draw(2000, rng=rng))
    for name, slope in (("a", 1.0), ("b", 0.6)):
        chances, labels = draw(1500, slope=slope, rng=rng)
        names = await log_answers(tmp_path / name, spread(1500), {"p": pair(chances)})
        await send_labels(tmp_path / name, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    same, fell = look(tmp_path / "a", BEGIN_US + DAY_US), look(tmp_path / "b", BEGIN_US + DAY_US)
    assert set(states(same, "realised").values()) == {"ok"}
    assert states(fell, "realised")["accuracy"] == "crit"
    assert metrics(tmp_path / "b", "gateway_model_metric_state")["accuracy"] == 2
    assert metrics(tmp_path / "b", "gateway_model_metric_change")["accuracy"] < -0.1
    # The chances are told as before, so without labels nothing is: that is what the estimate cannot see.
    assert set(states(fell, "estimated").values()) == {"ok"}
    assert values(fell, "estimated")["accuracy"] > values(fell, "realised")["accuracy"] + 0.1


async def test_where_a_profile_has_no_labels_it_is_said_and_nothing_is_estimated(tmp_path: Path) -> None:
    chances, labels = draw(400)
    save_profile(tmp_path, chances, labels, labelled=False)
    await log_answers(tmp_path, spread(400), {"p": pair(chances)})
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert arm["estimated"]["note"] == "its profile has no labelled rows"
    assert arm["realised"]["note"] == "no row of the last seven days has a label, 200 are needed"
    assert metrics(tmp_path, "gateway_model_metric_estimated") == {}
    save_profile(tmp_path, *draw(1000))  # the next revision has some
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert states(arm, "estimated") == {"accuracy": "ok", "f1": "ok", "auc": "ok"}
    assert metrics(tmp_path, "gateway_model_metric_estimated_rows") == {"": 400}


@pytest.mark.timeout(240)
async def test_a_killed_process_goes_on_with_what_it_had(tmp_path: Path) -> None:
    """The real process, and labels that come while it is dead."""
    now_us = int(time() * 1e6)
    chances, labels = draw(400)
    moments = now_us - HOUR_US + np.arange(400)
    names = await log_answers(tmp_path, moments, {"p": pair(chances)})
    await send_labels(tmp_path, names[:250], labels[:250].tolist(), received_us=now_us)
    for rows in (250, 400):
        shown = await asyncio.to_thread(compact_until, tmp_path, rows)
        real = accuracy_score(labels[:rows], chances[:rows] >= 0.5)
        assert values(shown, "realised")["accuracy"] == pytest.approx(real)
        await send_labels(tmp_path, names[250:], labels[250:].tolist(), received_us=now_us)


def compact_until(directory: Path, rows: int) -> dict[str, Any]:
    """What the compactor's process tells of the only arm, killed as soon as that rests on so many labels."""
    command = [sys.executable, "-m", "gateway.runtime.compaction"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write(config_of(directory).to_json().encode() + b"\n")
        process.stdin.flush()
        shown = until(lambda: told(directory, rows), 100.0, f"what {rows} labels say")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert shown is not None
    return shown


def told(directory: Path, rows: int) -> dict[str, Any] | None:
    """What is published of the only arm, once it rests on so many labels."""
    try:
        arms = report(directory)["arms"]
    except FileNotFoundError:
        return None
    return next((one for one in arms if one["realised"]["rows"] == rows), None)


async def test_errors_count_for_nothing_and_mirrors_are_arms_of_their_own(tmp_path: Path) -> None:
    chances, labels = draw(300)
    names = await log_answers(tmp_path, spread(300), {"p": pair(chances)})
    await log_answers(tmp_path, spread(50), {"p": pair(chances[:50])}, first=1000, code=13)
    await log_answers(tmp_path, spread(300), {"p": pair(1 - chances)}, version="2", arm="next", shadow_of="1")
    differing = {"p": pair(1 - chances)}  # of a mirror whose copies that agreed are not there
    await log_answers(tmp_path, spread(300), differing, version="3", arm="diffs", shadow_of="1", reason=CHOSEN_COPY)
    await send_labels(tmp_path, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    await send_labels(tmp_path, [f"r{1000 + n}" for n in range(50)], [1.0] * 50, received_us=BEGIN_US + DAY_US)
    worker, _ = watch(tmp_path, BEGIN_US + DAY_US)
    worker.step()
    worker.tend(last=True)
    shown = {(one["version"], one["arm"], one["shadow"]): one for one in report(tmp_path)["arms"]}
    assert set(shown) == {("1", "stable", False), ("2", "next", True)}
    first, second = (values(one, "realised")["accuracy"] for one in shown.values())
    assert first + second == pytest.approx(1.0)
    assert shown["1", "stable", False]["realised"]["rows"] == 300


async def test_a_mirror_that_falls_rings_no_alert_of_what_is_served(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    save_profile(tmp_path, *draw(2000, rng=rng))
    chances, labels = draw(1500, slope=0.2, rng=rng)
    names = await log_answers(tmp_path, spread(1500), {"p": pair(chances)}, version="2", arm="stable")
    await log_answers(tmp_path, spread(1500), {"p": pair(1 - chances)}, version="1", arm="next", shadow_of="2")
    await send_labels(tmp_path, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    worker, _ = watch(tmp_path, BEGIN_US + DAY_US)
    worker.step()
    worker.tend(last=True)
    folder = tmp_path / "run" / "published"
    assert firing("AccuracyDrop", folder) == []
    assert {one["role"] for one in firing("MirrorWorse", folder)} == {"mirror"}
    assert {one["version"] for one in firing("MirrorWorse", folder)} == {"1"}


async def test_sampled_rows_are_weighed(tmp_path: Path) -> None:
    """Those that a rule keeps stand for themselves, those that the rate keeps for ten."""
    rng = np.random.default_rng(4)
    chances = rng.uniform(0.5, 1.0, 20_000)
    labels = (rng.random(20_000) < chances).astype(float)
    sampling = Sampling(rate=0.1, keep_score_below=0.6)
    names = await log_answers(tmp_path, spread(20_000), {"p": pair(chances)}, sampling=sampling)
    await send_labels(tmp_path, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    arm = look(tmp_path, BEGIN_US + DAY_US)
    assert 5000 < arm["realised"]["rows"] < 6300
    assert values(arm, "realised")["accuracy"] == pytest.approx(labels.mean(), abs=0.02)


async def test_an_arm_that_nobody_is_sent_to_any_more_is_told_no_more(tmp_path: Path) -> None:
    chances, labels = draw(300)
    names = await log_answers(tmp_path, spread(300), {"p": pair(chances)})
    await send_labels(tmp_path, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    look(tmp_path, BEGIN_US + DAY_US)
    worker, _ = watch(tmp_path, BEGIN_US + 2 * DAY_US + HOUR_US)
    worker.tend(last=True)
    assert report(tmp_path)["arms"] == []


async def test_work_and_memory_are_bounded_and_one_step_assesses_one_arm(tmp_path: Path) -> None:
    chances, labels = draw(60_000)
    names = await log_answers(tmp_path, spread(60_000), {"p": pair(chances)})
    await log_answers(tmp_path, spread(300), {"p": pair(chances[:300])}, arm="canary", first=100_000)
    await send_labels(tmp_path, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    worker, monitor = watch(tmp_path, BEGIN_US + DAY_US)
    worker.step()
    (sample,) = monitor._models.values()
    sizes = {arm.arm: len(one.rows) for arm, one in sample.arms.items()}
    assert sizes["canary"] == 300
    assert 7000 < sizes["stable"] <= 20_000
    now_s = (BEGIN_US + DAY_US) / 1e6
    for later_s, assessed in ((0, 1), (1, 1), (2, 2), (16, 2)):
        monitor.tend(now_s + later_s, last=False)
        assert len(monitor._known) == assessed
    arms = {one["arm"]: one for one in report(tmp_path)["arms"]}
    real = accuracy_score(labels, chances >= 0.5)
    assert values(arms["stable"], "realised")["accuracy"] == pytest.approx(real, abs=0.015)


async def test_a_disk_that_refuses_and_damaged_state_cost_no_row_in_the_lake(tmp_path: Path) -> None:
    chances, labels = draw(300)
    names = await log_answers(tmp_path, spread(300), {"p": pair(chances)})
    await send_labels(tmp_path, names, labels.tolist(), received_us=BEGIN_US + DAY_US)
    state = tmp_path / "log" / "lake" / "_state"
    state.mkdir(parents=True)
    (state / "performance").write_text("a file where a folder should be")
    worker, monitor = watch(tmp_path, BEGIN_US + DAY_US)
    worker.step()
    worker.tend(last=True)
    assert (worker.counts.rows, worker.counts.labels) == (300, 300)
    assert monitor.failures == {"performance_disk": 1}
    assert "accuracy" in metrics(tmp_path, "gateway_model_metric")
    (state / "performance").unlink()
    (state / "performance").mkdir()
    (state / "performance" / "model=homes.sample").write_bytes(b"\xc1 no sample")
    worker, monitor = watch(tmp_path, BEGIN_US + DAY_US)
    worker.tend(last=True)
    assert monitor.failures == {"performance_damaged": 1}
    published = json.loads((tmp_path / "run" / "published" / "performance.metrics.json").read_text())["samples"]
    assert published["gateway_drift_failures"] == [["_total", {"reason": "performance_damaged"}, 1]]


async def test_a_damaged_profile_leaves_the_one_before_in_force(tmp_path: Path) -> None:
    save_profile(tmp_path, *draw(1000))
    await log_answers(tmp_path, spread(300), {"p": pair(draw(300)[0])})
    worker, monitor = watch(tmp_path, BEGIN_US + DAY_US)
    worker.step()
    worker.tend()
    (tmp_path / "profiles" / "homes" / "1" / "2.json").write_text("{")
    worker.tend(last=True)
    (arm,) = report(tmp_path)["arms"]
    assert "accuracy" in values(arm, "estimated")
    assert monitor.failures == {"performance_profile": 1}
