"""The source and the store of copies that tests of several modules of the room start from."""

from pathlib import Path

import pytest

from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore
from tests.loaders.repositories import CANARY


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    version = tmp_path / "repository" / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"model bytes")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(CANARY)
    return tmp_path / "repository"


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "data" / "store")


@pytest.fixture
def loader(repository: Path, store: ContentStore) -> FilesystemLoader:
    return FilesystemLoader(repository, store)
