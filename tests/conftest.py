"""Fixtures that more than one room uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.valkey import Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A real Valkey server, its append-only file synced at each write, as the embedded one is run."""
    server = Valkey(tmp_path / "valkey").start()
    yield server
    server.kill()
