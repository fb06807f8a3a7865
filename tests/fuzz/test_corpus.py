"""The corpus of the fuzzers, and bytes near it and at random, go through every target in each run of the tests."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.decode import decode
from gateway.api.wire import parse
from gateway.records.worker.frame import frame
from gateway.records.worker.reading import read
from gateway.routing.document.notation import parse_yaml
from tests.fuzz import targets
from tests.fuzz.__main__ import mutation
from tests.fuzz.seeds import CORPUS, SEEDS
from tests.fuzz.targets import TARGETS

MOST_BYTES = 256 * 1024  # of the corpus in the tree


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    for front in targets._front:
        front.loop.close()
    targets._front.clear()


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def test_every_target_has_a_small_corpus() -> None:
    assert set(TARGETS) == set(SEEDS) == {path.name for path in CORPUS.iterdir()}
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES


def test_the_seeds_are_what_is_served() -> None:
    """Inputs near what is refused at the door would go no further."""
    for data in SEEDS["request"]():
        parsed, raw, _ = parse(data[1:])
        assert decode(parsed, raw, targets.SIGNATURES[data[0]])[2] > 0
    for data in SEEDS["document"]():
        assert parse_yaml(data)
    (data,) = SEEDS["log"]()
    content = read(b"".join(frame(body, seed=targets.SEGMENT.seed) for body in targets.bodies(data)), targets.SEGMENT)
    assert list(content.blocks())
    assert content.damages == []


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_shows_no_defect(target: str) -> None:
    for data in corpus(target):
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_near_the_corpus_shows_no_defect(target: str) -> None:
    draw = random.Random(target)
    for _ in range(200):
        TARGETS[target](mutation(draw, corpus(target)))


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200))
def test_bytes_at_random_show_no_defect(target: str, data: bytes) -> None:
    TARGETS[target](data)
