"""The catalog: what is served when files come, change, fail and go, and what lookups answer meanwhile."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from gateway.errors import (
    InvalidArgument,
    Unavailable,
    UnknownModel,
    UnknownVersion,
    VersionNotReady,
)
from gateway.serving.version import IllegalVersionMove, VersionEvent, VersionState
from gateway.tensor import Datatype, TensorSpec
from loadtests.bench.models import MODELS, write
from tests import models
from tests.machine_load import as_loaded
from tests.serving.catalogs import answer, opened, state_of


async def test_serves_what_lies_in_the_repository_newest_number_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        for name, scale in (("9", 9.0), ("10", 10.0), ("canary", 7.0)):
            models.write_version(live.root, "m", name, models.affine(scale))
        assert not live.catalog.ready()
        await live.catalog.poll()
        assert live.catalog.ready()
        assert live.states() == dict.fromkeys(("m/canary", "m/9", "m/10"), VersionState.AVAILABLE)
        assert list(live.states()) == ["m/canary", "m/9", "m/10"]
        assert live.catalog.newest("m").name == "10"
        assert answer(live.catalog.version("m", "canary")) == 7.0
        assert sorted(live.available) == ["m/10", "m/9", "m/canary"]
        version = live.catalog.version("m", "9")
        assert version.batches
        assert version.merges
        assert version.max_batch_size == 256
        assert version.run_us > 0
        assert len(version.digest) == 64
        assert live.changes.index(("m", "10", VersionState.LOADING)) < live.changes.index(
            ("m", "10", VersionState.AVAILABLE)
        )


async def test_an_empty_repository_is_ready_and_knows_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        assert live.catalog.ready()
        assert live.catalog.models() == []
        with pytest.raises(UnknownModel):
            live.catalog.newest("m")


async def test_lookups_of_what_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine())
        models.write_version(live.root, "bad", "1", b"no model at all")
        await live.catalog.poll()
        with pytest.raises(UnknownModel, match="'nope'"):
            live.catalog.version("nope", "1")
        with pytest.raises(UnknownVersion, match="'2'"):
            live.catalog.version("m", "2")
        with pytest.raises(VersionNotReady, match="no ONNX model"):
            live.catalog.version("bad", "1")
        with pytest.raises(VersionNotReady, match="no ONNX model"):
            live.catalog.newest("bad")
        for name in ("../1", "1/..", "%2e%2e", "-1", "99999999999999999999", "1e3", "\uff11", "", "01", "a" * 65):
            with pytest.raises(InvalidArgument, match="version"):
                live.catalog.version("m", name)
        for model in ("", "../etc", "a/../b", "m/", "..", "a\\b", "a\0b", "m*", "\u202em", "e\u0301", "x" * 129):
            with pytest.raises(InvalidArgument, match="model name"):
                live.catalog.version(model, "1")
            with pytest.raises(InvalidArgument, match="model name"):
                live.catalog.newest(model)


async def test_a_version_that_fails_leaves_the_old_one_serving_and_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(
            live.root, "m", "1", models.affine(), config="version_policy { latest { num_versions: 1 } }"
        )
        await live.catalog.poll()
        models.write_version(live.root, "m", "2", models.affine()[:-20])
        for _ in range(3):
            await live.catalog.poll()
        assert live.states() == {"m/1": VersionState.AVAILABLE, "m/2": VersionState.FAILED}
        assert live.catalog.newest("m").name == "1"
        assert live.reason("m", "2")
        tries = live.changes.count(("m", "2", VersionState.LOADING))
        assert tries == 1  # nothing changed on disk: not tried again

        models.write_version(live.root, "m", "2", models.affine(5.0))
        for _ in range(3):
            await live.catalog.poll()
        assert answer(live.catalog.newest("m")) == 5.0
        assert live.catalog.newest("m").name == "2"
        assert "m/1" not in live.states() or live.states()["m/1"] is VersionState.END
        assert live.ended == ["m/1"]


async def test_new_files_replace_a_version_and_bad_ones_do_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(2.0))
        await live.catalog.poll()
        old = live.catalog.version("m", "1")
        old.lease()
        models.write_version(live.root, "m", "1", models.affine(3.0))
        await live.catalog.poll()
        new = live.catalog.version("m", "1")
        assert new is not old
        assert answer(new) == 3.0
        assert state_of(old) is VersionState.UNLOADING
        assert answer(old) == 2.0  # a request ends on the version that it began with
        old.release()
        assert state_of(old) is VersionState.END
        assert old.session is None

        models.write_version(live.root, "m", "1", b"garbage")
        await live.catalog.poll()
        await live.catalog.poll()
        assert live.catalog.version("m", "1") is new
        assert "newer files failed to load" in live.reason("m", "1")


async def test_a_removed_version_is_unloaded_after_a_second_look_and_its_last_lease(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        for name in ("1", "2"):
            models.write_version(live.root, "m", name, models.affine(float(name)))
        await live.catalog.poll()
        second = live.catalog.version("m", "2")
        second.lease()
        shutil.rmtree(live.root / "m" / "2")
        await live.catalog.poll()
        assert live.catalog.newest("m") is second
        await live.catalog.poll()
        assert live.catalog.newest("m").name == "1"
        with pytest.raises(Unavailable, match="not at ready state"):
            live.catalog.version("m", "2")
        assert state_of(second) is VersionState.UNLOADING
        second.release()
        assert state_of(second) is VersionState.END
        await live.catalog.poll()
        await live.catalog.poll()
        with pytest.raises(UnknownVersion):
            live.catalog.version("m", "2")


async def test_a_broken_configuration_fails_its_versions_readably(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(), config="max_batch_size: {")
        models.write_version(live.root, "other", "1", models.affine(), config='name: "m"')
        models.write_version(live.root, "py", "1", models.affine(), config='backend: "python"')
        await live.catalog.poll()
        assert set(live.states().values()) == {VersionState.FAILED}
        assert "config.pbtxt" in live.reason("m", "1")
        assert "name: 'm' is not 'other'" in live.reason("other", "1")
        assert "backend: 'python'" in live.reason("py", "1")
        assert live.catalog.ready()
        (live.root / "m" / "config.pbtxt").write_text("max_batch_size: 16")
        await live.catalog.poll()
        assert live.catalog.newest("m").max_batch_size == 16


async def test_rows_that_depend_on_each_other_are_never_merged(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "auto", "1", models.row_mixing())
        models.write_version(live.root, "asked", "1", models.row_mixing(), config="max_batch_size: 8")
        await live.catalog.poll()
        assert not live.catalog.newest("auto").batches
        assert live.catalog.newest("auto").inputs[0].shape == (-1, 4)
        assert live.catalog.newest("asked").batches
        assert not live.catalog.newest("asked").merges


def unlucky_mean() -> bytes:
    """x minus the mean over the rows of relu(x - 1000): only large inputs show that rows depend on each other."""
    nodes = [
        helper.make_node("Sub", ["x", "thousand"], ["less"]),
        helper.make_node("Relu", ["less"], ["rest"]),
        helper.make_node("ReduceMean", ["rest"], ["mean"], name="over rows", axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    value = models.tensor_value("x", Datatype.FP32, (-1, 4)), models.tensor_value("y", Datatype.FP32, (-1, 4))
    weight = models.weight("thousand", np.array([1000.0], np.float32))
    return models.model_of(nodes, value[:1], value[1:], [weight]).SerializeToString()


async def test_rows_that_runs_cannot_tell_apart_are_merged_only_where_somebody_says_so(tmp_path: Path) -> None:
    asked = 'parameters { key: "merge_requests" value { string_value: "true" } }'
    configs = {
        "bare": None,
        "plain": "max_batch_size: 8",
        "triton": "max_batch_size: 8 dynamic_batching { }",
        "asked": asked,
    }
    async with opened(tmp_path) as live:
        for model, config in configs.items():
            models.write_version(live.root, model, "1", unlucky_mean(), config=config)
        await live.catalog.poll()
        merging = {status.model: status.merging for status in live.catalog.states()}
        assert {model: text.partition(":")[0] for model, text in merging.items()} == {
            "bare": "no",
            "plain": "no",
            "triton": "yes",
            "asked": "yes",
        }
        assert merging["bare"].endswith("ReduceMean (over rows): it reduces over the rows")
        assert live.catalog.newest("bare").batches


async def test_the_models_of_the_benchmark_are_merged(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        for model in MODELS.values():
            write(model, live.root)
            models.write_version(live.root, f"{model.name}-bare", "1", model.serialized("1"))
        await live.catalog.poll()
        merging = {status.model: status.merging for status in live.catalog.states()}
        for name in MODELS:
            assert merging[name] == "yes: dynamic_batching is configured"
            assert merging[f"{name}-bare"] == "yes: the graph shows that rows are independent"


async def test_the_loop_that_looks_picks_up_what_comes_and_ends_when_cancelled(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        task = asyncio.create_task(live.catalog.run(0.02))
        models.write_version(live.root, "m", "1", models.affine())
        await live.until(lambda: live.states().get("m/1") is VersionState.AVAILABLE)
        models.write_version(live.root, "m", "2", models.affine(4.0))
        await live.until(lambda: live.states().get("m/2") is VersionState.AVAILABLE)
        assert answer(live.catalog.newest("m")) == 4.0
        live.root.rename(tmp_path / "away")  # everything stays while the repository cannot be read
        await live.catalog.poll()
        await live.catalog.poll()
        assert live.catalog.newest("m").name == "2"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_status_of_a_version_in_use(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine())
        await live.catalog.poll()
        version = live.catalog.version("m", "1")
        version.lease()
        (status,) = live.catalog.states("m")
        assert (status.in_flight, status.max_batch_size, status.digest) == (1, 256, version.digest)
        assert live.catalog.states("other") == []
        version.release()
        with pytest.raises(IllegalVersionMove, match="ready while AVAILABLE"):
            version.move(VersionEvent.READY)


async def test_copies_that_no_worker_uses_leave_the_content_store(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(1.0))
        await live.catalog.poll()
        old = live.catalog.version("m", "1").digest
        models.write_version(live.root, "m", "1", models.affine(2.0))
        await live.catalog.poll()
        new = live.catalog.version("m", "1").digest
        store = tmp_path / "data" / "store"
        for digest in (old, new):
            os.utime(store / digest, (0, 0))
        assert await live.catalog.copies.tend(time.time()) == (old,)
        assert (store / new).is_dir()
        assert answer(live.catalog.version("m", "1")) == 2.0


async def test_a_repository_that_becomes_empty_unloads_nothing_and_alarms(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine())
        await live.catalog.poll()
        live.root.rename(tmp_path / "unmounted")
        live.root.mkdir()
        for _ in range(3):
            await live.catalog.poll()
        assert answer(live.catalog.newest("m")) == 2.0
        assert "holds no model any more" in live.catalog.trouble
        live.root.rmdir()
        (tmp_path / "unmounted").rename(live.root)
        await live.catalog.poll()
        assert live.catalog.trouble == ""
        assert answer(live.catalog.newest("m")) == 2.0


async def test_touched_or_copied_files_reload_nothing_and_changed_ones_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        labelled = 'output { name: "y" label_filename: "labels.txt" }'
        directory = models.write_version(live.root, "m", "1", models.affine(), config=labelled)
        labels = live.root / "m" / "labels.txt"
        labels.write_text("a\nb\n")
        await live.catalog.poll()
        first = live.catalog.newest("m")
        for path in (directory / "model.onnx", labels, live.root / "m" / "config.pbtxt"):
            os.utime(path, (1, 1))
            await live.catalog.poll()
            path.write_bytes(path.read_bytes())
            await live.catalog.poll()
        assert live.catalog.newest("m") is first
        assert live.changes.count(("m", "1", VersionState.LOADING)) == 1
        labels.write_text("a\nc\n")
        await live.catalog.poll()
        assert live.catalog.newest("m").labels == {"y": ("a", "c")}


async def test_an_output_that_is_declared_wrong_is_served_as_it_is(tmp_path: Path) -> None:
    node = helper.make_node("Compress", ["x", "which"], ["y"], axis=0)
    which = models.weight("which", np.array([True, False, True, True]))
    for shape in ((7,), (4, 4), ()):
        tensors = models.tensor_value("x", Datatype.FP32, (4,)), models.tensor_value("y", Datatype.FP32, shape)
        content = models.model_of([node], tensors[:1], tensors[1:], [which]).SerializeToString()
        models.write_version(tmp_path / "models", f"m{len(shape)}", "1", content)
    empty = helper.make_node("ReduceSum", ["x", "axes"], ["y"])
    tensors = models.tensor_value("x", Datatype.FP32, (2, 0, 4)), models.tensor_value("y", Datatype.FP32, (2, 1, 4))
    axes = models.weight("axes", np.array([1]))
    content = models.model_of([empty], tensors[:1], tensors[1:], [axes]).SerializeToString()
    models.write_version(tmp_path / "models", "empty", "1", content)
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        assert set(live.states().values()) == {VersionState.AVAILABLE}, live.states()
        for model in ("m0", "m1", "m2"):
            assert live.catalog.newest(model).outputs == (TensorSpec("y", Datatype.FP32, (3,)),)
        assert live.catalog.newest("empty").inputs[0].shape == (2, 0, 4)


async def test_a_restarted_worker_serves_what_its_siblings_serve_whatever_else_loads(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "good", "1", models.affine())
        await live.catalog.start(60)
        assert live.catalog.ready()
        models.write_version(live.root, "hangs", "1", models.endless())
    begin = time.monotonic()
    async with opened(tmp_path) as live:
        await live.catalog.start(1.0, restarted=True)
        assert time.monotonic() - begin < as_loaded(5)
        assert live.states() == {"good/1": VersionState.AVAILABLE, "hangs/1": VersionState.LOADING}
        assert live.catalog.ready()
    async with opened(tmp_path) as live:
        await live.catalog.start(0.5)
        assert answer(live.catalog.newest("good")) == 2.0
        assert not live.catalog.ready()  # a first start waits for what may still come


async def test_copies_in_use_are_kept_beyond_the_limit_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, store_bytes=0) as live:
        models.write_version(live.root, "m", "1", models.affine())
        await live.catalog.poll()
        for _ in range(2):
            assert await live.catalog.copies.tend(time.time()) == ()
        models.write_version(live.root, "m", "1", models.affine(3.0))
        old = live.catalog.newest("m").digest
        await live.catalog.poll()
        os.utime(tmp_path / "data/store" / old, (0, 0))
        assert await live.catalog.copies.tend(time.time()) == (old,)
    assert len([text for text in caplog.messages if "raise --content-store-bytes" in text]) == 1
