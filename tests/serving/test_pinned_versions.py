"""Versions that routes name: loaded whatever the policy says, immutable, and served from their copies."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from gateway.errors import (
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
    UnknownModel,
    UnknownVersion,
    VersionNotReady,
)
from gateway.serving.replacement import Replacement
from gateway.serving.residence import LEAST_BYTES, Residence
from gateway.serving.version import VersionState
from tests import models
from tests.serving.catalogs import OpenCatalog, answer, opened, state_of


def write(live: OpenCatalog, *names: str, policy: str) -> None:
    """Writes versions of model `m`, whose slopes are their names, and which of them are served."""
    for name in names:
        models.write_version(live.root, "m", name, models.affine(float(name)))
    (live.root / "m" / "config.pbtxt").write_text(f"version_policy {{ {policy} }}")


async def test_require_keeps_what_the_policy_would_not_load(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        write(live, "1", "2", "3", policy="specific { versions: 3 }")
        await live.catalog.poll()
        assert live.states() == {"m/3": VersionState.AVAILABLE}
        await live.catalog.require("m", ["1", "3"])
        assert live.catalog.version("m", "1").state is VersionState.AVAILABLE
        shutil.rmtree(live.root / "m" / "1")  # required versions serve on without their directory
        for _ in range(3):
            await live.catalog.poll()
        assert live.states() == {"m/1": VersionState.AVAILABLE, "m/3": VersionState.AVAILABLE}

        assert not live.catalog.require_available("m", frozenset({"1", "2"}))
        assert not live.catalog.require_available("other", frozenset({"1"}))
        assert live.catalog.require_available("m", frozenset({"3"}))  # at once, as `require` would
        assert live.catalog.version("m", "1").state is VersionState.AVAILABLE
        for _ in range(3):
            await live.catalog.poll()
        assert live.states() == {"m/3": VersionState.AVAILABLE}


async def test_require_of_what_cannot_serve_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        write(live, "1", "2", policy="specific { versions: 2 }")
        models.write_version(live.root, "m", "3", b"garbage")
        await live.catalog.poll()
        with pytest.raises(UnknownModel):
            await live.catalog.require("nope", ["1"])
        with pytest.raises(UnknownVersion):
            await live.catalog.require("m", ["1", "7"])
        with pytest.raises(VersionNotReady, match="no ONNX model"):
            await live.catalog.require("m", ["1", "3"])
        with pytest.raises(InvalidArgument):
            await live.catalog.require("m", ["../1"])
        for _ in range(3):
            await live.catalog.poll()
        assert live.states() == {"m/2": VersionState.AVAILABLE}


async def test_a_draining_version_that_is_required_again_comes_back_without_loading(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        write(live, "1", "2", policy="latest { num_versions: 1 }")
        await live.catalog.poll()
        await live.catalog.require("m", ["1"])
        first = live.catalog.version("m", "1")
        first.lease()
        await live.catalog.require("m", ["2"])
        await live.catalog.poll()
        await live.catalog.poll()
        assert state_of(first) is VersionState.UNLOADING
        await live.catalog.require("m", ["1", "2"])
        assert live.catalog.version("m", "1") is first
        assert live.changes.count(("m", "1", VersionState.LOADING)) == 1
        first.release()
        assert state_of(first) is VersionState.AVAILABLE


async def test_a_version_that_a_route_names_is_immutable(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(1.0))
        await live.catalog.poll()
        first = live.catalog.newest("m")
        await live.catalog.require("m", ["1"])
        models.write_version(live.root, "m", "1", models.affine(9.0))
        for _ in range(2):
            await live.catalog.poll()
        assert live.catalog.newest("m") is first
        assert answer(first) == 1.0
        assert "a version that a route names is immutable; copy the new content to version 2" in live.reason("m", "1")
        with pytest.raises(FailedPrecondition, match="immutable"):
            await live.catalog.load("m")
        models.write_version(live.root, "m", "2", models.affine(9.0))
        await live.catalog.poll()
        assert answer(live.catalog.version("m", "2")) == 9.0
    async with opened(tmp_path) as live:  # a worker that starts again serves what the route was given
        await live.catalog.poll()
        assert answer(live.catalog.version("m", "1")) == 1.0
        assert "immutable" in live.reason("m", "1")
        live.catalog.release_unrouted(())
        await live.until(lambda: live.reason("m", "1") == "")
        await live.catalog.poll()
        assert answer(live.catalog.version("m", "1")) == 9.0


@pytest.mark.parametrize("vanished", ["m/1", "m"])
async def test_a_routed_version_whose_directory_vanished_is_loaded_from_its_copy(tmp_path: Path, vanished: str) -> None:
    labelled = 'output { name: "y" label_filename: "labels.txt" } max_batch_size: 3'
    async with opened(tmp_path) as live:
        models.write_version(live.root, "n", "1", models.affine())  # a repository without any model changes nothing
        models.write_version(live.root, "m", "2", models.affine(2.0))
        models.write_version(live.root, "m", "1", models.affine(9.0), config=labelled)
        (live.root / "m" / "labels.txt").write_text("a\nb\n")
        await live.catalog.poll()
        await live.catalog.require("m", ["1"])
        (live.root / "m" / "labels.txt").write_text("c\nd\n")
        await live.catalog.poll()
        await live.until(lambda: live.catalog.version("m", "1").labels == {"y": ("c", "d")})
        await live.settled()
        shutil.rmtree(live.root / vanished)
        for _ in range(3):
            await live.catalog.poll()
        assert answer(live.catalog.version("m", "1")) == 9.0
    for digest in (tmp_path / "data/store").glob("?" * 64):
        os.utime(digest, (0, 0))  # the gateway was stopped for long
    async with opened(tmp_path) as live:
        await live.catalog.poll()
        await live.catalog.copies.tend(time.time())
        await live.catalog.require("m", ["1"])
        version = live.catalog.version("m", "1")
        assert answer(version) == 9.0
        assert (version.labels, version.config.max_batch_size) == ({"y": ("c", "d")}, 3)
        for _ in range(3):
            await live.catalog.poll()
        assert live.catalog.version("m", "1") is version
        with pytest.raises(UnknownVersion if vanished == "m/1" else UnknownModel):
            await live.catalog.require("m", ["7"])
    async with opened(tmp_path) as live:  # without a route nothing is kept for it
        await live.catalog.poll()
        live.catalog.release_unrouted(())
        await live.settled()
        with pytest.raises((UnknownVersion, UnknownModel)):
            await live.catalog.require("m", ["1"])
        for digest in (tmp_path / "data/store").glob("?" * 64):
            os.utime(digest, (0, 0))
        assert version.digest in await live.catalog.copies.tend(time.time())


async def test_routed_versions_serve_after_a_restart_while_the_repository_is_away(tmp_path: Path) -> None:
    """A worker that was replaced meanwhile served nothing, with the copies beside it."""
    async with opened(tmp_path) as live:
        for model in ("m", "n"):
            models.write_version(live.root, model, "1", models.affine(9.0))
        await live.catalog.poll()
        await live.catalog.require("m", ["1"])
        await live.settled()
    async with opened(tmp_path) as live:
        os.rename(live.root, tmp_path / "away")
        await live.catalog.start(0.0)
        assert "cannot be listed" in live.catalog.trouble
        await live.catalog.require("m", ["1"])
        version = live.catalog.version("m", "1")
        assert answer(version) == 9.0
        with pytest.raises(UnknownModel):
            live.catalog.newest("n")
        await live.catalog.poll()
        assert not live.catalog.ready(), "nobody knows what else there is"
        os.rename(tmp_path / "away", live.root)
        await live.catalog.poll()
        assert live.catalog.ready()
        assert (live.catalog.version("m", "1"), live.catalog.trouble) == (version, "")
        assert answer(live.catalog.newest("n")) == 9.0


async def test_the_target_of_a_rollback_is_kept_while_the_repository_is_away(tmp_path: Path) -> None:
    """Each look at a repository that was away since the start took what the route names now for it."""
    async with opened(tmp_path) as live:
        write(live, "1", "2", policy="all {}")
        await live.catalog.poll()
        await live.catalog.require("m", ["1", "2"])
        await live.settled()
        size = max(LEAST_BYTES, *(live.catalog.details("m", name)[2] for name in ("1", "2")))
    os.rename(live.root, tmp_path / "away")
    async with opened(tmp_path, residence=Residence(limit_bytes=size, stay_s=0.0)) as live:  # of one of them
        os.rmdir(live.root)
        await live.catalog.start(0.0)
        await live.catalog.require("m", ["1", "2"])
        await live.catalog.require("m", ["2"])
        await live.settled()
        await live.catalog.poll()
        live.catalog.note_use()
        assert "cannot be listed" in live.catalog.trouble
        assert live.catalog.residence()["warm"] == 2, "a rollback leads to version 1"


async def test_a_replacement_is_recorded_before_it_takes_effect_or_waits(tmp_path: Path) -> None:
    seen: list[tuple[Replacement, float]] = []
    reachable, polls_again = False, asyncio.Event()

    async with opened(tmp_path) as live:

        async def record(replacement: Replacement) -> None:
            seen.append((replacement, answer(live.catalog.newest("m"))))
            if len(seen) == 2:
                polls_again.set()
            if not reachable:
                raise Unavailable("the store is away")

        live.catalog.record_replacements(record)
        models.write_version(live.root, "m", "1", models.affine(1.0))
        await live.catalog.poll()
        first = live.catalog.newest("m")
        models.write_version(live.root, "m", "1", models.affine(9.0))
        with pytest.raises(Unavailable, match="the store is away"):
            await live.catalog.load("m")
        assert answer(live.catalog.newest("m")) == 1.0
        polled = asyncio.ensure_future(live.catalog.poll())
        await polls_again.wait()
        assert "cannot be recorded in the audit trail: the store is away" in live.reason("m", "1")
        assert not polled.done()
        reachable = True
        await polled
        second = live.catalog.newest("m")
        assert (answer(second), second.reason) == (9.0, "")
        assert {(one.previous_digest, one.digest, serving) for one, serving in seen} == {
            (first.digest, second.digest, 1.0)
        }
        assert len({one.fingerprint for one, _ in seen}) == 1


async def test_a_route_that_comes_while_new_content_waits_keeps_the_old(tmp_path: Path) -> None:
    waits, may_go = asyncio.Event(), asyncio.Event()

    async def record(replacement: Replacement) -> None:
        waits.set()
        await may_go.wait()

    async with opened(tmp_path) as live:
        live.catalog.record_replacements(record)
        models.write_version(live.root, "m", "1", models.affine(1.0))
        await live.catalog.poll()
        models.write_version(live.root, "m", "1", models.affine(9.0))
        polled = asyncio.ensure_future(live.catalog.poll())
        await waits.wait()
        await live.catalog.require("m", ["1"])
        may_go.set()
        await polled
        assert answer(live.catalog.newest("m")) == 1.0
        await live.catalog.poll()
        assert answer(live.catalog.newest("m")) == 1.0
        assert "immutable" in live.reason("m", "1")


async def test_a_version_that_no_route_names_is_replaced(tmp_path: Path) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(1.0))
        models.write_version(live.root, "m", "2", models.affine(2.0))
        await live.catalog.poll()
        await live.catalog.require("m", ["1"])
        await live.catalog.require("m", ["2"])
        models.write_version(live.root, "m", "1", models.affine(9.0))
        await live.catalog.poll()
        assert answer(live.catalog.version("m", "1")) == 9.0
