"""The catalog: what is served when files come, change, fail and go, and what lookups answer meanwhile."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    UnknownModel,
    UnknownVersion,
    VersionNotReady,
)
from gateway.serving.version import IllegalVersionMove, Version, VersionEvent, VersionState
from tests import models
from tests.serving.catalogs import opened


def answer(version: Version) -> float:
    assert version.session is not None
    return float(version.session.run(None, {"x": np.ones((1, 4), np.float32)})[0][0, 0])


def state_of(version: Version) -> VersionState:
    return version.state


async def test_serves_what_lies_in_the_repository_newest_number_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        for name, scale in (("9", 9.0), ("10", 10.0), ("canary", 7.0)):
            models.write_version(shop.root, "m", name, models.affine(scale))
        assert not shop.catalog.ready()
        await shop.catalog.poll()
        assert shop.catalog.ready()
        assert shop.states() == dict.fromkeys(("m/canary", "m/9", "m/10"), VersionState.AVAILABLE)
        assert list(shop.states()) == ["m/canary", "m/9", "m/10"]
        assert shop.catalog.newest("m").name == "10"
        assert answer(shop.catalog.version("m", "canary")) == 7.0
        assert sorted(shop.available) == ["m/10", "m/9", "m/canary"]
        version = shop.catalog.version("m", "9")
        assert version.batches
        assert version.merges
        assert version.max_batch_size == 256
        assert version.run_us > 0
        assert len(version.digest) == 64
        assert shop.changes.index(("m", "10", VersionState.LOADING)) < shop.changes.index(
            ("m", "10", VersionState.AVAILABLE)
        )


async def test_an_empty_repository_is_ready_and_knows_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        await shop.catalog.poll()
        assert shop.catalog.ready()
        assert shop.catalog.models() == []
        with pytest.raises(UnknownModel):
            shop.catalog.newest("m")


async def test_lookups_of_what_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine())
        models.write_version(shop.root, "bad", "1", b"no model at all")
        await shop.catalog.poll()
        with pytest.raises(UnknownModel, match="'nope'"):
            shop.catalog.version("nope", "1")
        with pytest.raises(UnknownVersion, match="'2'"):
            shop.catalog.version("m", "2")
        with pytest.raises(VersionNotReady, match="no ONNX model"):
            shop.catalog.version("bad", "1")
        with pytest.raises(VersionNotReady, match="no ONNX model"):
            shop.catalog.newest("bad")
        for name in ("../1", "1/..", "%2e%2e", "-1", "99999999999999999999", "1e3", "\uff11", "", "01", "a" * 65):
            with pytest.raises(InvalidArgument, match="version"):
                shop.catalog.version("m", name)
        for model in ("", "../etc", "a/../b", "m/", "..", "a\\b", "a\0b", "m*", "\u202em", "e\u0301", "x" * 129):
            with pytest.raises(InvalidArgument, match="model name"):
                shop.catalog.version(model, "1")
            with pytest.raises(InvalidArgument, match="model name"):
                shop.catalog.newest(model)


async def test_a_version_that_fails_leaves_the_old_one_serving_and_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(
            shop.root, "m", "1", models.affine(), config="version_policy { latest { num_versions: 1 } }"
        )
        await shop.catalog.poll()
        models.write_version(shop.root, "m", "2", models.affine()[:-20])
        for _ in range(3):
            await shop.catalog.poll()
        assert shop.states() == {"m/1": VersionState.AVAILABLE, "m/2": VersionState.FAILED}
        assert shop.catalog.newest("m").name == "1"
        assert shop.reason("m", "2")
        tries = shop.changes.count(("m", "2", VersionState.LOADING))
        assert tries == 1  # nothing changed on disk: not tried again

        models.write_version(shop.root, "m", "2", models.affine(5.0))
        for _ in range(3):
            await shop.catalog.poll()
        assert answer(shop.catalog.newest("m")) == 5.0
        assert shop.catalog.newest("m").name == "2"
        assert "m/1" not in shop.states() or shop.states()["m/1"] is VersionState.END
        assert shop.ended == ["m/1"]


async def test_new_files_replace_a_version_and_bad_ones_do_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine(2.0))
        await shop.catalog.poll()
        old = shop.catalog.version("m", "1")
        old.lease()
        models.write_version(shop.root, "m", "1", models.affine(3.0))
        await shop.catalog.poll()
        new = shop.catalog.version("m", "1")
        assert new is not old
        assert answer(new) == 3.0
        assert state_of(old) is VersionState.UNLOADING
        assert answer(old) == 2.0  # a request ends on the version that it began with
        old.release()
        assert state_of(old) is VersionState.END
        assert old.session is None

        models.write_version(shop.root, "m", "1", b"garbage")
        await shop.catalog.poll()
        await shop.catalog.poll()
        assert shop.catalog.version("m", "1") is new
        assert "newer files failed to load" in shop.reason("m", "1")


async def test_a_removed_version_is_unloaded_after_a_second_look_and_its_last_lease(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        for name in ("1", "2"):
            models.write_version(shop.root, "m", name, models.affine(float(name)))
        await shop.catalog.poll()
        second = shop.catalog.version("m", "2")
        second.lease()
        shutil.rmtree(shop.root / "m" / "2")
        await shop.catalog.poll()
        assert shop.catalog.newest("m") is second
        await shop.catalog.poll()
        assert shop.catalog.newest("m").name == "1"
        with pytest.raises(Unavailable, match="not at ready state"):
            shop.catalog.version("m", "2")
        assert state_of(second) is VersionState.UNLOADING
        second.release()
        assert state_of(second) is VersionState.END
        await shop.catalog.poll()
        await shop.catalog.poll()
        with pytest.raises(UnknownVersion):
            shop.catalog.version("m", "2")


async def test_require_keeps_what_the_policy_would_not_load(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        for name in ("1", "2", "3"):
            models.write_version(shop.root, "m", name, models.affine(float(name)))
        (shop.root / "m" / "config.pbtxt").write_text("version_policy { specific { versions: 3 } }")
        await shop.catalog.poll()
        assert shop.states() == {"m/3": VersionState.AVAILABLE}
        await shop.catalog.require("m", ["1", "3"])
        assert shop.catalog.version("m", "1").state is VersionState.AVAILABLE
        shutil.rmtree(shop.root / "m" / "1")  # required versions serve on without their directory
        for _ in range(3):
            await shop.catalog.poll()
        assert shop.states() == {"m/1": VersionState.AVAILABLE, "m/3": VersionState.AVAILABLE}

        assert not shop.catalog.require_available("m", frozenset({"1", "2"}))
        assert not shop.catalog.require_available("other", frozenset({"1"}))
        assert shop.catalog.require_available("m", frozenset({"3"}))  # at once, as `require` would
        assert shop.catalog.version("m", "1").state is VersionState.AVAILABLE
        for _ in range(3):
            await shop.catalog.poll()
        assert shop.states() == {"m/3": VersionState.AVAILABLE}


async def test_require_of_what_cannot_serve_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        for name in ("1", "2"):
            models.write_version(shop.root, "m", name, models.affine(float(name)))
        models.write_version(shop.root, "m", "3", b"garbage")
        (shop.root / "m" / "config.pbtxt").write_text("version_policy { specific { versions: 2 } }")
        await shop.catalog.poll()
        with pytest.raises(UnknownModel):
            await shop.catalog.require("nope", ["1"])
        with pytest.raises(UnknownVersion):
            await shop.catalog.require("m", ["1", "7"])
        with pytest.raises(VersionNotReady, match="no ONNX model"):
            await shop.catalog.require("m", ["1", "3"])
        with pytest.raises(InvalidArgument):
            await shop.catalog.require("m", ["../1"])
        for _ in range(3):
            await shop.catalog.poll()
        assert shop.states() == {"m/2": VersionState.AVAILABLE}


async def test_a_draining_version_that_is_required_again_comes_back_without_loading(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        for name in ("1", "2"):
            models.write_version(shop.root, "m", name, models.affine(float(name)))
        (shop.root / "m" / "config.pbtxt").write_text("version_policy { latest { num_versions: 1 } }")
        await shop.catalog.poll()
        await shop.catalog.require("m", ["1"])
        first = shop.catalog.version("m", "1")
        first.lease()
        await shop.catalog.require("m", ["2"])
        await shop.catalog.poll()
        await shop.catalog.poll()
        assert state_of(first) is VersionState.UNLOADING
        await shop.catalog.require("m", ["1", "2"])
        assert shop.catalog.version("m", "1") is first
        assert shop.changes.count(("m", "1", VersionState.LOADING)) == 1
        first.release()
        assert state_of(first) is VersionState.AVAILABLE


async def test_unload_and_load_by_hand_outlive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine())
        await shop.catalog.poll()
        version = shop.catalog.version("m", "1")
        version.lease()
        await shop.catalog.unload("m")
        assert shop.states() == {"m/1": VersionState.UNLOADING}
        version.release()
        assert shop.states() == {"m/1": VersionState.END}
        assert shop.reason("m", "1") == "unloaded"
        with pytest.raises(NotFound, match="has no available versions"):
            shop.catalog.newest("m")
        await shop.catalog.poll()
        assert shop.states() == {"m/1": VersionState.END}
        with pytest.raises(VersionNotReady, match="unloaded by hand"):
            await shop.catalog.require("m", ["1"])
        with pytest.raises(UnknownModel):
            await shop.catalog.unload("nope")
    async with opened(tmp_path) as shop:
        await shop.catalog.poll()
        assert shop.catalog.ready()
        assert shop.states() == {"m/1": VersionState.END}
        assert shop.catalog.models() == ["m"]
        await shop.catalog.load("m")
        assert shop.states() == {"m/1": VersionState.AVAILABLE}
    async with opened(tmp_path) as shop:
        await shop.catalog.poll()
        assert shop.states() == {"m/1": VersionState.AVAILABLE}


async def test_load_is_all_or_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine(1.0))
        await shop.catalog.poll()
        first = shop.catalog.version("m", "1")
        models.write_version(shop.root, "m", "2", models.affine(2.0))
        models.write_version(shop.root, "m", "3", b"garbage")
        with pytest.raises(FailedPrecondition, match=r"failed to load 'm': version 3: .*no ONNX model"):
            await shop.catalog.load("m")
        assert shop.states() == {"m/1": VersionState.AVAILABLE, "m/2": VersionState.FAILED, "m/3": VersionState.FAILED}
        assert shop.catalog.newest("m") is first
        await shop.catalog.poll()
        assert shop.states()["m/2"] is VersionState.FAILED  # the next look does not undo the decision
        models.write_version(shop.root, "m", "3", models.affine(3.0))
        await shop.catalog.load("m")
        assert set(shop.states().values()) == {VersionState.AVAILABLE}
        assert shop.catalog.version("m", "1") is first  # unchanged files are not loaded again
        with pytest.raises(UnknownModel):
            await shop.catalog.load("nope")
        with pytest.raises(InvalidArgument):
            await shop.catalog.load("../m")


async def test_a_configuration_given_with_a_load_holds_until_the_next_load(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine(1.0))
        models.write_version(shop.root, "m", "2", models.affine(2.0))
        await shop.catalog.poll()
        await shop.catalog.load("m", '{"max_batch_size": 8, "version_policy": {"specific": {"versions": [1]}}}')
        assert shop.catalog.newest("m").name == "1"
        assert shop.catalog.newest("m").max_batch_size == 8
        for bad in ("[]", '{"max_batch_size": "many"}', '{"name": "m", "name": "m"}'):
            with pytest.raises(InvalidArgument, match="config"):
                await shop.catalog.load("m", bad)
        with pytest.raises(FailedPrecondition, match="'z' is not in the model"):
            await shop.catalog.load("m", '{"input": [{"name": "z"}]}')
        assert shop.catalog.newest("m").max_batch_size == 8
        await shop.catalog.poll()
        assert shop.catalog.newest("m").max_batch_size == 8
    async with opened(tmp_path) as shop:
        await shop.catalog.poll()
        assert shop.catalog.newest("m").name == "1"
        assert shop.catalog.newest("m").max_batch_size == 8
        await shop.catalog.load("m")
        assert shop.catalog.newest("m").name == "2"
        assert shop.catalog.newest("m").max_batch_size == 256


async def test_a_broken_configuration_fails_its_versions_readably(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine(), config="max_batch_size: {")
        models.write_version(shop.root, "other", "1", models.affine(), config='name: "m"')
        models.write_version(shop.root, "py", "1", models.affine(), config='backend: "python"')
        await shop.catalog.poll()
        assert set(shop.states().values()) == {VersionState.FAILED}
        assert "config.pbtxt" in shop.reason("m", "1")
        assert "name: 'm' is not 'other'" in shop.reason("other", "1")
        assert "backend: 'python'" in shop.reason("py", "1")
        assert shop.catalog.ready()
        (shop.root / "m" / "config.pbtxt").write_text("max_batch_size: 16")
        await shop.catalog.poll()
        assert shop.catalog.newest("m").max_batch_size == 16


async def test_rows_that_depend_on_each_other_are_never_merged(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "auto", "1", models.row_mixing())
        models.write_version(shop.root, "asked", "1", models.row_mixing(), config="max_batch_size: 8")
        await shop.catalog.poll()
        assert not shop.catalog.newest("auto").batches
        assert shop.catalog.newest("auto").inputs[0].shape == (-1, 4)
        assert shop.catalog.newest("asked").batches
        assert not shop.catalog.newest("asked").merges


async def test_the_loop_that_looks_picks_up_what_comes_and_ends_when_cancelled(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        task = asyncio.create_task(shop.catalog.run(0.02))
        models.write_version(shop.root, "m", "1", models.affine())
        await shop.until(lambda: shop.states().get("m/1") is VersionState.AVAILABLE)
        models.write_version(shop.root, "m", "2", models.affine(4.0))
        await shop.until(lambda: shop.states().get("m/2") is VersionState.AVAILABLE)
        assert answer(shop.catalog.newest("m")) == 4.0
        shop.root.rename(tmp_path / "away")  # everything stays while the repository cannot be read
        await shop.catalog.poll()
        await shop.catalog.poll()
        assert shop.catalog.newest("m").name == "2"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_unload_during_a_load_wins(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine())
        looking = asyncio.create_task(shop.catalog.poll())
        await shop.until(lambda: shop.states().get("m/1") is VersionState.LOADING)
        with pytest.raises(Unavailable, match="loading"):
            shop.catalog.newest("m")
        await shop.catalog.unload("m")
        await looking
        assert shop.states() == {"m/1": VersionState.END}
        assert not shop.available


async def test_a_caller_that_goes_away_does_not_stop_a_load(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine())
        task = asyncio.create_task(shop.catalog.load("m"))
        await shop.until(lambda: shop.states().get("m/1") is VersionState.LOADING)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await shop.until(lambda: shop.states().get("m/1") is VersionState.AVAILABLE)


async def test_status_of_a_version_in_use(tmp_path: Path) -> None:
    async with opened(tmp_path) as shop:
        models.write_version(shop.root, "m", "1", models.affine())
        await shop.catalog.poll()
        version = shop.catalog.version("m", "1")
        version.lease()
        (status,) = shop.catalog.states("m")
        assert (status.in_flight, status.max_batch_size, status.digest) == (1, 256, version.digest)
        assert shop.catalog.states("other") == []
        version.release()
        with pytest.raises(IllegalVersionMove, match="ready while AVAILABLE"):
            version.move(VersionEvent.READY)
