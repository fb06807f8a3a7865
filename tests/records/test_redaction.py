import hmac
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.records.worker.record import Record
from gateway.records.worker.redaction import Redaction
from gateway.records.worker.redaction_rule import InputMode, RedactionAction, RedactionRule
from gateway.records.worker.tail import tail
from gateway.tensor import Datatype, TensorSpec
from tests.records.traffic import NOW_US, compactor, lake_rows, open_log

AGE = TensorSpec("age", Datatype.FP32, (-1, 3))
NAME = TensorSpec("name", Datatype.BYTES, (-1, 2))
FREE = TensorSpec("free", Datatype.FP32, (-1, -1))
SCORE = TensorSpec("score", Datatype.FP32, (-1, 1))
SECRET = b"Ada Lovelace"


async def _row(folder: Path, redaction: Redaction) -> dict[str, Any]:
    log = open_log(folder / "wal", redaction=redaction)
    stream = log.stream("people", "1", "a", (AGE, NAME, FREE), (SCORE,), "d")
    age = np.array([[36.0, 3.25, 7.0]], "<f4")
    name = np.array([[SECRET, b"London"]], object)
    free = np.array([[1.5, 2.5]], "<f4")
    shapes = [(1, 3), (1, 2), (1, 2)]
    stream.append(Record(NOW_US, "r", 0, "S", 1, 1, 1, 0, 0, 0, shapes, (age, name, free), (np.array([[0.5]], "<f4"),)))
    await log.close()
    (path,) = (folder / "wal" / "gw").iterdir()
    raw = path.read_bytes()
    compactor(folder / "wal", folder / "lake").step()
    (row,) = lake_rows(folder / "lake")
    return row | {"~raw": raw}


async def test_each_action_bears_on_the_bytes_before_they_reach_the_disk(tmp_path: Path) -> None:
    rules = (
        RedactionRule("people", "age", RedactionAction.BUCKET, 0, (18.0, 30.0, 65.0)),
        RedactionRule("people", "age", RedactionAction.NULL, 1),
        RedactionRule("people", "name", RedactionAction.HASH, 0),
        RedactionRule("*", "free", RedactionAction.DROP),
        RedactionRule("other", "score", RedactionAction.DROP),
    )
    row = await _row(tmp_path, Redaction(rules, key=b"k", key_id="k1", revision=4))
    digest = hmac.new(b"k", SECRET, sha256).hexdigest()[:32]
    assert (row["f.age_0"], row["f.age_1"], row["f.age_2"]) == (2.0, None, 7.0)
    assert (row["f.name_0"], row["f.name_1"]) == (f"hmac:k1:{digest}", "London")
    assert not [name for name in row if "free" in name]
    assert (row["out.score"], row["redaction_rev"], row["redacted"]) == (0.5, 4, "age,free,name")
    assert SECRET not in row["~raw"]
    assert np.float32(3.25).tobytes() not in row["~raw"]
    assert np.array([1.5, 2.5], "<f4").tobytes() not in row["~raw"]


@pytest.mark.parametrize(
    ("mode", "expected"), [(InputMode.ALL, "age name free"), (InputMode.LISTED, "name"), (InputMode.NONE, "")]
)
async def test_the_mode_says_which_inputs_are_logged(tmp_path: Path, mode: InputMode, expected: str) -> None:
    row = await _row(tmp_path, Redaction(inputs=mode, listed=frozenset({("people", "name")})))
    assert [name for name in ("age", "name", "free") if any(f".{name}" in key for key in row)] == expected.split()


@pytest.mark.parametrize(
    "rule",
    [
        RedactionRule("people", "age", RedactionAction.HASH, 0),
        RedactionRule("people", "free", RedactionAction.NULL, 0),
        RedactionRule("people", "age", RedactionAction.NULL, 9),
    ],
)
async def test_a_rule_that_cannot_be_carried_out_blanks_the_whole_tensor(tmp_path: Path, rule: RedactionRule) -> None:
    row = await _row(tmp_path, Redaction((rule,), key=b"k"))
    values = [row[key] for key in row if f".{rule.tensor}" in key]
    assert values
    assert set(values) == {None}
    assert row["out.score"] == 0.5


async def test_a_value_that_a_rule_fails_on_costs_the_tensors_and_keeps_the_row(tmp_path: Path) -> None:
    log = open_log(tmp_path, redaction=Redaction((RedactionRule("people", "name", RedactionAction.HASH),), key=b"k"))
    stream: Any = log.stream("people", "1", "a", (NAME,), (SCORE,), "d")
    broken = np.array([[SECRET, None]], object)
    broken[0, 1] = ("x",)  # no text: there is nothing to hash
    stream.append(Record(NOW_US, "broken", 0, "S", 1, 1, 1, 0, 0, 0, None, (broken,), (np.array([[0.5]], "<f4"),)))
    stream.append(Record(NOW_US + 1, "good", 0, "S", 1, 1, 1, 0, 0, 0, None, (np.array([[SECRET, b""]], object),), ()))
    await log.close()
    assert (log.counts().written, dict(log.counts().withheld)) == (2, {"encode_error": 1})
    rows = [row async for row in tail(tmp_path, backlog=5, follow=False)]
    assert [(row.request_id, row.outputs_json) for row in rows] == [("broken", "{}"), ("good", "{}")]
    assert "hmac:" in rows[1].inputs_json
    (path,) = (tmp_path / "gw").iterdir()
    assert SECRET not in path.read_bytes()


def test_rules_that_make_no_sense_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'name' of model 'people': hash needs a key"):
        Redaction((RedactionRule("people", "name", RedactionAction.HASH),))
    with pytest.raises(ValueError, match=r"bucket edges are \(2\.0, 1\.0\)"):
        Redaction((RedactionRule("people", "age", RedactionAction.BUCKET, 0, (2.0, 1.0)),))
    assert "secret" not in repr(Redaction(key=b"secret"))


def test_a_feature_of_a_tensor_without_a_shape_leaves_the_tensor_out() -> None:
    """Which element is its feature 0 cannot be told."""
    spec = TensorSpec("age", Datatype.FP32, (), any_shape=True)
    for feature, blank in ((0, {"age"}), (None, set())):
        rules = (RedactionRule("people", "age", RedactionAction.BUCKET, feature, (18.0,)),)
        assert Redaction(rules, key=b"k", key_id="k1").of("people", (spec,), ()).blank == blank
