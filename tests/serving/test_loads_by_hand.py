"""Models that operators load and unload: all or nothing, beyond a restart, whoever waits for it."""

import asyncio
from pathlib import Path

import pytest

from gateway.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    UnknownModel,
    VersionNotReady,
)
from gateway.serving.version import VersionState
from tests import models
from tests.serving.catalogs import opened


async def test_unload_and_load_by_hand_outlive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine())
        await live.catalog.poll()
        version = live.catalog.version("m", "1")
        version.lease()
        await live.catalog.unload("m")
        assert live.states() == {"m/1": VersionState.UNLOADING}
        version.release()
        assert live.states() == {"m/1": VersionState.END}
        assert live.reason("m", "1") == "unloaded"
        with pytest.raises(NotFound, match="has no available versions"):
            live.catalog.newest("m")
        await live.catalog.poll()
        assert live.states() == {"m/1": VersionState.END}
        with pytest.raises(VersionNotReady, match="unloaded by hand"):
            await live.catalog.require("m", ["1"])
        with pytest.raises(UnknownModel):
            await live.catalog.unload("nope")
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        assert live.catalog.ready()
        assert live.states() == {"m/1": VersionState.END}
        assert live.catalog.models() == ["m"]
        await live.catalog.load("m")
        assert live.states() == {"m/1": VersionState.AVAILABLE}
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        assert live.states() == {"m/1": VersionState.AVAILABLE}


async def test_load_is_all_or_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(1.0))
        await live.catalog.poll()
        first = live.catalog.version("m", "1")
        models.write_version(live.root, "m", "2", models.affine(2.0))
        models.write_version(live.root, "m", "3", b"garbage")
        with pytest.raises(FailedPrecondition, match=r"failed to load 'm': version 3: .*no ONNX model"):
            await live.catalog.load("m")
        assert live.states() == {"m/1": VersionState.AVAILABLE, "m/2": VersionState.FAILED, "m/3": VersionState.FAILED}
        assert live.catalog.newest("m") is first
        await live.catalog.poll()
        assert live.states()["m/2"] is VersionState.FAILED  # the next look does not undo the decision
        models.write_version(live.root, "m", "3", models.affine(3.0))
        await live.catalog.load("m")
        assert set(live.states().values()) == {VersionState.AVAILABLE}
        assert live.catalog.version("m", "1") is first  # unchanged files are not loaded again
        with pytest.raises(UnknownModel):
            await live.catalog.load("nope")
        with pytest.raises(InvalidArgument):
            await live.catalog.load("../m")


async def test_a_configuration_given_with_a_load_holds_until_the_next_load(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(1.0))
        models.write_version(live.root, "m", "2", models.affine(2.0))
        await live.catalog.poll()
        await live.catalog.load("m", '{"max_batch_size": 8, "version_policy": {"specific": {"versions": [1]}}}')
        assert live.catalog.newest("m").name == "1"
        assert live.catalog.newest("m").max_batch_size == 8
        for bad in ("[]", '{"max_batch_size": "many"}', '{"name": "m", "name": "m"}'):
            with pytest.raises(InvalidArgument, match="config"):
                await live.catalog.load("m", bad)
        with pytest.raises(FailedPrecondition, match="'z' is not in the model"):
            await live.catalog.load("m", '{"input": [{"name": "z"}]}')
        assert live.catalog.newest("m").max_batch_size == 8
        await live.catalog.poll()
        assert live.catalog.newest("m").max_batch_size == 8
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        assert live.catalog.newest("m").name == "1"
        assert live.catalog.newest("m").max_batch_size == 8
        await live.catalog.load("m")
        assert live.catalog.newest("m").name == "2"
        assert live.catalog.newest("m").max_batch_size == 256


async def test_an_unload_during_a_load_wins(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine())
        looking = asyncio.create_task(live.catalog.poll())
        await live.until(lambda: live.states().get("m/1") is VersionState.LOADING)
        with pytest.raises(Unavailable, match="loading"):
            live.catalog.newest("m")
        await live.catalog.unload("m")
        await looking
        assert live.states() == {"m/1": VersionState.END}
        assert not live.available


async def test_a_caller_that_goes_away_does_not_stop_a_load(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine())
        task = asyncio.create_task(live.catalog.load("m"))
        await live.until(lambda: live.states().get("m/1") is VersionState.LOADING)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await live.until(lambda: live.states().get("m/1") is VersionState.AVAILABLE)
