"""The soak: what it calls growth, what it reports, and a short run of it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadtests.soak.growth import BLOCKS, FEWEST, Slope, Verdict, slope
from loadtests.soak.holdings import QUANTITIES, Life
from loadtests.soak.page import BUDGETS, fits, write

REQUESTS = [place * 5_000 for place in range(400)]


def held(per_million: float, noise: float, seed: int = 1) -> list[float]:
    draw = Random(seed)
    return [100 + one / 1e6 * per_million + draw.gauss(0, noise) for one in REQUESTS]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (held(0.0, 0.1), Verdict.HOLDS),
        (held(0.5, 0.1), Verdict.HOLDS),
        (held(2.0, 0.1), Verdict.GROWS),
        (held(1.0, 5.0), Verdict.UNDECIDED),
        ([100.0] * len(REQUESTS), Verdict.HOLDS),
        # What fills at the beginning, and single peaks, are no growth.
        ([one + min(place, 90) for place, one in enumerate(held(0.0, 0.1))], Verdict.HOLDS),
        ([one + 500 * (place % 50 == 49) for place, one in enumerate(held(0.0, 0.1))], Verdict.HOLDS),
    ],
    ids=["flat", "little", "a leak", "who knows", "constant", "warm-up", "peaks"],
)
def test_growth_is_told_from_noise(values: Sequence[float], verdict: Verdict) -> None:
    fitted = slope(REQUESTS, values)
    assert fitted is not None
    assert fitted.verdict(BUDGETS["rss_mib"]) is verdict
    assert fitted.lowest <= fitted.value <= fitted.highest


@given(st.lists(st.floats(0, 1e6), max_size=60), st.integers(1, 20_000))
@example([], 1)
@example([1.0], 1)
@example([7.0] * 60, 20_000)
def test_too_little_is_not_fitted(values: list[float], each: int) -> None:
    fitted = slope([place * each for place in range(len(values))], values)
    if len(values) < BLOCKS or len(values) * each < FEWEST:
        assert fitted is None
    elif fitted is not None and len(set(values)) == 1:
        assert fitted == Slope(0.0, 0.0, 0.0)


def test_the_report_says_what_grows_and_what_nobody_knows(tmp_path: Path) -> None:
    leaks = Life("worker", 0, 11, REQUESTS, {name: held(5.0, 0.1) for name in QUANTITIES})
    brief = Life("worker", 1, 12, REQUESTS[:5], {name: held(0.0, 0.1)[:5] for name in QUANTITIES})
    made = fits([leaks, brief])
    assert [fit.verdict for fit in made] == [Verdict.GROWS] * 4 + [Verdict.UNDECIDED] * 4
    write(tmp_path / "report", {"seed": "<7>"}, [leaks, brief], made)
    text = (tmp_path / "report" / "soak.txt").read_text()
    assert text.count("grows     worker-0 (11)") == 4
    assert "undecided: 1 processes" in text
    told = json.loads((tmp_path / "report" / "soak.json").read_text())
    assert (told["seed"], told["growth"][0]["verdict"], told["growth"][-1]["per_million"]) == ("<7>", "grows", None)
    page = (tmp_path / "report" / "soak.html").read_text()
    assert page.count("<svg") == 8
    assert "&lt;7&gt;" in page


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
def test_everything_at_once_ends_as_it_has_to(tmp_path: Path, transport: str) -> None:
    """Kills, hangs, flips, reloads, bad, late and cancelled calls; the seed is in what a failure prints."""
    command = [sys.executable, "-m", "loadtests.soak", "--seconds", "60", "--transport", transport]
    done = subprocess.run([*command, "--report", tmp_path], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "soak.json").read_text())["calls good OK"] > 1000
