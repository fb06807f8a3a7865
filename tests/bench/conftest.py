"""A work directory with the tiny model, and the bare server on it, for the tests of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.bench import cases, servers
from loadtests.bench.cases import Case
from loadtests.bench.models import MODELS
from loadtests.bench.servers import Server


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="session")
def tiny(work: Path) -> Case:
    return cases.make([MODELS["tiny"]], work)[0]


@pytest.fixture(scope="session")
def bare(tiny: Case, work: Path) -> Iterator[Server]:
    with servers.bare([tiny], work) as server:
        yield server
