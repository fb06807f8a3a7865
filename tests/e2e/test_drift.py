"""Reference profiles of a running gateway, from its own answers and from what it logged, and that it counts by them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.reference_profile import Profile
from tests.e2e.calls import infer
from tests.e2e.conftest import Demo, connect
from tests.e2e.product import Product, command, until

MODEL = "flight_delay"
BATCH = 64  # the largest that its configuration allows
FEATURES = ("AIRLINE", "DISTANCE", "TAXI_OUT", "AIR_TIME", "WEEKDAY")


def rows_of(demo: Demo, path: Path) -> Path:
    """The samples as a table of training data, its columns in another order than the model's inputs, and whether each
    flight was late: some true class, what it is does not matter."""
    with np.load(demo.samples / f"{MODEL}.npz") as arrays:
        columns = {name: arrays[f"inputs/{name}"][:, 0].tolist() for name in reversed(FEATURES)}
    columns["late"] = [int(value > 15) for value in columns["TAXI_OUT"]]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        texts = [[item.decode() if isinstance(item, bytes) else item for item in column] for column in columns.values()]
        writer.writerows(zip(*texts, strict=True))
    return path


def counted(profile: Profile) -> dict[str, dict[str, int]]:
    """The reference's rows by feature and cell, those without rows left out."""
    return {
        one.name: {cell: count for cell, count in zip(one.bins.cells, one.counts, strict=True) if count}
        for one in profile.all_features
    }


@pytest.mark.long
def test_a_profile_of_replayed_rows_is_that_of_the_rows_in_the_log(
    start_product: Callable[..., Product], demo: Demo, tmp_path: Path
) -> None:
    product = start_product("drift", "--drift-window", "1m")
    data = ("--data-dir", str(product.data))
    path = rows_of(demo, tmp_path / "training.csv")
    words = ("profile", "build", MODEL, "--version", "1", "--replay", str(path), "--label", "late")
    built = product.cli(*words, *data, "-o", "json")
    assert built.exit_code == 0, built.output
    replayed = ProfileFiles(product.data).load(MODEL, "1")
    assert [(one.name, one.kind.value) for one in replayed.features] == [
        ("AIRLINE", "bytes"), ("DISTANCE", "num"), ("TAXI_OUT", "num"), ("AIR_TIME", "num"), ("WEEKDAY", "int"),
    ]  # fmt: skip
    names = {one.name for one in replayed.outputs}
    assert names == {"out.label", "out.probabilities_0", "out.probabilities_1", "pred_class", "pred_score"}

    def watched() -> bool:
        return product.metrics().get("gateway_drift_profiles") == 1.0

    until(watched, 30.0, "the monitor's look at the new profile")
    samples = demo.rows(MODEL)
    with connect(product) as channel:
        for number, sample in enumerate(samples * 2):
            infer(channel, MODEL, sample, version="1", request_id=f"d{number}")
    labels = _labels_of_replayed(path, tmp_path / "labels.csv")
    assert product.cli("feedback", "send", "-f", str(labels)).exit_code == 0
    product.stop()
    _knows_every_row(product, len(samples) * 2 + replayed.rows)
    _knows_how_good_it_was(product, replayed)

    where = "request_id LIKE 'profile-%'"
    pinned = command("profile", "build", MODEL, "--version", "1", "--window", "1d", "--where", where, *data)
    assert pinned.returncode == 0, pinned.stderr
    assert "revision 2" in pinned.stdout
    again = ProfileFiles(product.data).load(MODEL, "1")
    assert again.rows == replayed.rows == 256
    assert counted(again) == counted(replayed)


def _labels_of_replayed(path: Path, target: Path) -> Path:
    """The labels of the file, for the requests that its replay sent: batches that begin at these rows."""
    with path.open(newline="") as file:
        labels = [row["late"] for row in csv.DictReader(file)]
    lines = [f"{MODEL},profile-{row - row % BATCH},{row % BATCH},{label}" for row, label in enumerate(labels)]
    target.write_text("\n".join(["model,request_id,row_index,label", *lines]))
    return target


def _knows_how_good_it_was(product: Product, replayed: Profile) -> None:
    """The labelled rows are those of the profile, so nothing has changed; what is estimated stands beside that."""
    assert replayed.baseline is not None
    assert replayed.baseline.rows == 256
    shown = command("drift", "status", MODEL, "--data-dir", str(product.data), "-o", "json")
    (arm,) = json.loads(shown.stdout)["performance"]
    by_name = {one["name"]: one for one in arm["realised"]["metrics"]}
    assert arm["realised"]["rows"] == 256
    assert {"accuracy", "auc"} <= set(by_name)
    for name, one in by_name.items():
        known = replayed.baseline.metric(name)
        assert known is not None
        assert abs(one["value"] - known.value) < 1e-6
    assert {one["name"]: one["state"] for one in arm["estimated"]["metrics"]}.keys() == {"accuracy", "f1", "auc"}
    product.start()
    metrics = product.metrics()
    product.stop()
    labels = f'{{arm="{arm["arm"]}",model="{MODEL}",name="accuracy",role="serving",version="1"}}'
    assert metrics["gateway_model_metric" + labels] == by_name["accuracy"]["value"]
    assert metrics["gateway_model_metric_state" + labels] == 0


def _knows_every_row(product: Product, total: int) -> None:
    """What was logged after the profile was there was counted; what was logged before may have been."""
    published = json.loads((product.data / "run" / "published" / "drift.metrics.json").read_text())["samples"]
    ((_, _, rows),) = published["gateway_drift_rows"]
    assert total - 256 <= rows <= total
    assert all(value == 0 for _, _, value in published["gateway_drift_failures"])
    state = product.data / "log" / "lake" / "_state" / "drift"
    assert (state / f"model={MODEL}" / "version%2F1.tally").is_file()
