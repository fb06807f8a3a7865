"""Files that the operating system, or their source, does not give at the moment."""

import os
from collections.abc import Callable
from errno import EACCES, EIO
from pathlib import Path

import pytest

from gateway.errors import (
    Unavailable,
)
from gateway.serving.intents import IntentStore
from gateway.serving.version import VersionState
from loaders.errors import SourceUnreadable
from loaders.filesystem import FilesystemLoader
from loaders.loader import Loader, LocalVersion
from loaders.store import ContentStore
from tests import models
from tests.serving.catalogs import opened


class Flickering(FilesystemLoader):
    """A source of which some files cannot be read now."""

    away: frozenset[str] = frozenset()

    def read(self, model: str, name: str, limit: int) -> bytes:
        if name in self.away:
            raise SourceUnreadable(f"{name} cannot be read: the source answers 503")
        return super().read(model, name, limit)


@pytest.mark.parametrize("name", ["config.pbtxt", "labels.txt"])
async def test_files_that_cannot_be_read_for_a_moment_are_no_bad_ones(name: str, tmp_path: Path) -> None:
    """The failure was kept as that of these files, and nothing was tried again until somebody wrote to them."""
    loaders: list[Flickering] = []

    def made(root: Path, store: ContentStore) -> Loader:
        loaders.append(Flickering(root, store))
        return loaders[0]

    config = 'output { name: "y" label_filename: "labels.txt" }'
    async with opened(tmp_path, loader_of=made) as live:
        models.write_version(live.root, "m", "1", models.affine(), config=config)
        (live.root / "m" / "labels.txt").write_text("a\nb\n")
        loaders[0].away = frozenset({name})
        await live.catalog.poll()
        assert VersionState.AVAILABLE not in live.states().values()
        loaders[0].away = frozenset()
        await live.catalog.poll()
        assert live.catalog.newest("m").config.outputs[0].labels == ("a", "b")

        (live.root / "m" / "labels.txt").write_text("c\nd\n")
        (live.root / "m" / "config.pbtxt").write_text(f"{config}\n# later\n")
        loaders[0].away = frozenset({name})
        await live.catalog.poll()
        assert live.catalog.newest("m").config.outputs[0].labels == ("a", "b")
        loaders[0].away = frozenset()
        await live.catalog.poll()
        assert live.catalog.newest("m").config.outputs[0].labels == ("c", "d")


def flickering(loaders: list[Flickering]) -> Callable[[Path, ContentStore], Loader]:
    """What makes a loader that is appended to `loaders`; its configurations cannot be read."""

    def made(root: Path, store: ContentStore) -> Loader:
        loaders.append(Flickering(root, store))
        loaders[-1].away = frozenset({"config.pbtxt"})
        return loaders[-1]

    return made


async def test_a_load_of_a_configuration_that_cannot_be_read_tells_so(tmp_path: Path) -> None:
    """It reported success, with the configuration from before in force."""
    loaders: list[Flickering] = []
    async with opened(tmp_path, loader_of=flickering(loaders)) as live:
        loaders[0].away = frozenset()
        models.write_version(live.root, "m", "1", models.affine(), config="max_batch_size: 8")
        await live.catalog.poll()
        loaders[0].away = frozenset({"config.pbtxt"})
        (live.root / "m" / "config.pbtxt").write_text("max_batch_size: 4")
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"failed to load 'm': config.pbtxt cannot be read"):
                await live.catalog.load("m")
            await live.catalog.poll()
            assert live.catalog.newest("m").max_batch_size == 8
        assert (
            live.reason("m", "1") == "newer files failed to load: config.pbtxt cannot be read: the source answers 503"
        )
        assert live.changes.count(("m", "1", VersionState.LOADING)) == 2, "the reason is told once"
        draining = live.catalog.newest("m")
        draining.lease()
        await live.catalog.unload("m")
        IntentStore(tmp_path / "data" / "state").change(lambda intents: intents.with_load("m", None))
        await live.catalog.poll()
        assert live.catalog.newest("m") is draining, "it comes back, as nothing says that it is another"
        draining.release()
        loaders[0].away = frozenset()
        await live.catalog.poll()
        assert live.catalog.newest("m").max_batch_size == 4
        assert live.reason("m", "1") == ""


async def test_a_new_model_whose_configuration_cannot_be_read_is_shown(tmp_path: Path) -> None:
    """It was nowhere: neither among the states nor passed over, and a load said that there is no such model."""
    loaders: list[Flickering] = []
    async with opened(tmp_path, loader_of=flickering(loaders)) as live:
        models.write_version(live.root, "m", "1", models.affine(), config="max_batch_size: 4")
        models.write_version(live.root, "labelled", "current", models.affine(), config="max_batch_size: 4")
        os.rename(live.root / "labelled/current/model.onnx", live.root / "labelled/current/net.onnx")
        for _ in range(3):
            await live.catalog.poll()
        assert live.states() == {"m/1": VersionState.FAILED}
        assert live.reason("m", "1") == "config.pbtxt cannot be read: the source answers 503"
        assert live.catalog.passed_over()["labelled"] == "config.pbtxt cannot be read: the source answers 503"
        assert live.changes.count(("m", "1", VersionState.LOADING)) == 1
        with pytest.raises(Unavailable, match=r"config.pbtxt cannot be read"):
            await live.catalog.load("m")
        loaders[0].away = frozenset()
        await live.catalog.poll()
        assert live.catalog.newest("m").max_batch_size == 4


async def test_a_routed_version_starts_with_the_configuration_that_is_kept_where_it_cannot_be_read(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as live:
        models.write_version(live.root, "m", "1", models.affine(), config="max_batch_size: 4")
        await live.catalog.poll()
        await live.catalog.require("m", ["1"])
        await live.settled()
        await live.settled()  # the first begins the second
    loaders: list[Flickering] = []
    async with opened(tmp_path, loader_of=flickering(loaders)) as live:
        await live.catalog.poll()
        assert live.catalog.newest("m").max_batch_size == 4
        assert live.catalog.ready()
        loaders[0].away = frozenset()
        await live.catalog.poll()
        assert live.available == ["m/1"], "it has the same content, and is not loaded again"
        assert live.reason("m", "1") == ""


class Refusing(FilesystemLoader):
    """A source whose copies the operating system refuses to give, while there is an error."""

    error: int | None = None

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        return super().fetch(model, version, digest=digest)


@pytest.mark.parametrize(("error", "attempts"), [(EACCES, 1), (EIO, 3)])
async def test_a_refusal_that_lasts_is_not_tried_again_at_each_look(error: int, attempts: int, tmp_path: Path) -> None:
    loaders: list[Refusing] = []

    def made(root: Path, store: ContentStore) -> Loader:
        loaders.append(Refusing(root, store))
        return loaders[0]

    async with opened(tmp_path, loader_of=made) as live:
        models.write_version(live.root, "m", "1", models.affine())
        loaders[0].error = error
        for _ in range(3):
            await live.catalog.poll()
        assert live.changes.count(("m", "1", VersionState.LOADING)) == attempts
        assert live.reason("m", "1") == f"files cannot be read: {os.strerror(error)}"
        loaders[0].error = None
        await live.catalog.load("m")
        assert live.states() == {"m/1": VersionState.AVAILABLE}
