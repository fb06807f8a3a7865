"""Reference profiles of a running gateway, from its own answers and from what it logged, and that it counts by them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gateway.drift.profile import Profile
from gateway.drift.profile_files import ProfileFiles
from tests.e2e.calls import infer
from tests.e2e.conftest import Demo, connect
from tests.e2e.product import Product, command, until

MODEL = "flight_delay"
FEATURES = ("AIRLINE", "DISTANCE", "TAXI_OUT", "AIR_TIME", "WEEKDAY")


def rows_of(demo: Demo, path: Path) -> Path:
    """The samples as a table of training data, its columns in another order than the model's inputs."""
    with np.load(demo.samples / f"{MODEL}.npz") as arrays:
        columns = {name: arrays[f"inputs/{name}"][:, 0].tolist() for name in reversed(FEATURES)}
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


def test_a_profile_of_replayed_rows_is_that_of_the_rows_in_the_log(
    start_product: Callable[..., Product], demo: Demo, tmp_path: Path
) -> None:
    product = start_product("drift", "--drift-window", "1m")
    data = ("--data-dir", str(product.data))
    path = rows_of(demo, tmp_path / "training.csv")
    built = product.cli("profile", "build", MODEL, "--version", "1", "--replay", str(path), *data, "-o", "json")
    assert built.exit_code == 0, built.output
    replayed = ProfileFiles(product.data).load(MODEL, "1")
    assert [(one.name, one.kind.value) for one in replayed.features] == [
        ("AIRLINE", "bytes"), ("DISTANCE", "num"), ("TAXI_OUT", "num"), ("AIR_TIME", "num"), ("WEEKDAY", "int"),
    ]  # fmt: skip
    names = {one.name for one in replayed.outputs}
    assert names == {"out.label", "out.probabilities_0", "out.probabilities_1", "pred_class", "pred_score"}

    def watched() -> bool:
        return product.metrics().get("drift_profiles") == 1.0

    until(watched, 30.0, "the monitor's look at the new profile")
    samples = demo.rows(MODEL)
    with connect(product) as channel:
        for number, sample in enumerate(samples * 2):
            infer(channel, MODEL, sample, version="1", request_id=f"d{number}")
    product.stop()
    _knows_every_row(product, len(samples) * 2 + replayed.rows)

    where = "request_id LIKE 'profile-%'"
    pinned = command("profile", "build", MODEL, "--version", "1", "--window", "1d", "--where", where, *data)
    assert pinned.returncode == 0, pinned.stderr
    assert "revision 2" in pinned.stdout
    again = ProfileFiles(product.data).load(MODEL, "1")
    assert again.rows == replayed.rows == 256
    assert counted(again) == counted(replayed)


def _knows_every_row(product: Product, total: int) -> None:
    """What was logged after the profile was there was counted; what was logged before may have been."""
    published = json.loads((product.data / "run" / "published" / "drift.metrics.json").read_text())["samples"]
    ((_, _, rows),) = published["drift_rows"]
    assert total - 256 <= rows <= total
    assert all(value == 0 for _, _, value in published["drift_failures"])
    state = product.data / "log" / "lake" / "_state" / "drift"
    assert (state / f"model={MODEL}" / "version%2F1.tally").is_file()
