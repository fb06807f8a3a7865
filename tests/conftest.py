"""Fixtures that more than one room uses."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.hypothesis_profiles import DEFAULT, scaled
from tests.valkey import Valkey

settings.load_profile(DEFAULT)  # --hypothesis-profile names another


# They take minutes: whoever runs beside them has the other files meanwhile.
FIRST = ("test_compiled.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, and gives property tests as many times more examples as the profile does."""
    for item in items:
        scaled(item)
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Processes that tests start can be interrupted, also where a shell started the tests in its background.

    Such a shell has SIGINT ignored, and what is ignored stays so in every process below.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A real Valkey server, its append-only file synced at each write, as the embedded one is run."""
    server = Valkey(tmp_path / "valkey").start()
    yield server
    server.kill()
