"""Keys to buckets: golden vectors, shares, and salts that know nothing of each other."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.key import bucket_of, bucket_of_draw, bucket_of_draw_salted, seed_of

VECTORS = json.loads(Path(__file__).with_name("golden_buckets.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['salt']}/{vector['key']}"[:40])
def test_golden_buckets(vector: dict[str, object]) -> None:
    key, salt = vector["key"], vector["salt"]
    assert isinstance(key, str)
    assert isinstance(salt, str)
    assert seed_of(salt) == int(str(vector["seed"]))
    assert bucket_of(key, seed_of(salt)) == vector["bucket"]


def test_the_empty_salt_has_the_seed_that_xxh3_publishes() -> None:
    assert seed_of("") == 0x2D06800538D394C2


def test_a_million_keys_are_spread_evenly() -> None:
    seed = seed_of("shares")
    buckets = np.fromiter((bucket_of(f"user-{n}", seed) for n in range(1_000_000)), dtype=np.int64, count=1_000_000)
    assert buckets.min() >= 0
    assert buckets.max() < BUCKETS
    for parts in (100, 7, 2):
        counts = np.bincount(buckets * parts // BUCKETS, minlength=parts)
        sigma = math.sqrt(1_000_000 / parts * (1 - 1 / parts))
        assert np.abs(counts - 1_000_000 / parts).max() < (4 if parts < 10 else 5) * sigma


def test_salts_are_independent() -> None:
    """A cross table of two experiments on the same 200 000 keys: chi-square below the 0.1 % point of 9 degrees."""
    salts = [seed_of(salt) for salt in ("fraud-exp-7", "fraud-exp-8", "m", "m/mirror/b")]
    quarters = np.array([[bucket_of(f"user-{n}", seed) * 4 // BUCKETS for n in range(100_000)] for seed in salts])
    for left in range(len(salts)):
        for right in range(left):
            table = np.bincount(quarters[left] * 4 + quarters[right], minlength=16).reshape(4, 4)
            expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
            assert ((table - expected) ** 2 / expected).sum() < 27.88


def test_draws_fill_the_range_and_salted_draws_are_independent_of_them() -> None:
    assert bucket_of_draw(0.0) == 0
    assert bucket_of_draw(math.nextafter(1.0, 0.0)) == BUCKETS - 1
    seed = seed_of("m/mirror/b")
    draws = np.random.default_rng(3).random(50_000)
    plain = np.array([bucket_of_draw(draw) for draw in draws]) * 2 // BUCKETS
    salted = np.array([bucket_of_draw_salted(float(draw), seed) for draw in draws]) * 2 // BUCKETS
    assert abs(float(np.corrcoef(plain, salted)[0, 1])) < 4 / math.sqrt(50_000)


def test_text_that_is_no_utf8_still_has_a_bucket() -> None:
    assert bucket_of("\udc80", 1) == bucket_of("\udc80", 1)
    assert bucket_of("\udc80", 1) != bucket_of("\udc81", 1)
