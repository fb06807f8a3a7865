"""What tests of several modules of the room start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.serving.prepared_store import PreparedStore
from loaders.filesystem import FilesystemLoader
from loaders.loader import LocalVersion
from loaders.store import ContentStore
from tests import models
from tests.serving.catalogs import Fetch
from tests.serving.trial_processes import EARLIER, zygotes


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    loader = FilesystemLoader(tmp_path / "repository", ContentStore(tmp_path / "content"))

    def fetch(content: bytes, files: dict[str, bytes] | None = None) -> LocalVersion:
        models.write_version(tmp_path / "repository", "m", "1", content, files=files)
        return loader.fetch("m", "1")

    return fetch


@pytest.fixture
def prepared_store(tmp_path: Path) -> Iterator[PreparedStore]:
    store = PreparedStore(tmp_path / "prepared", max_bytes=1 << 30)
    store.make()
    yield store
    assert not (tmp_path / "prepared" / "staging").exists()
    assert not list((tmp_path / "prepared").glob("removed.*"))


@pytest.fixture(scope="module")
def earlier_zygotes() -> None:
    """Leaves out of `zygotes` those that tests of other modules started."""
    EARLIER.update(zygotes())
