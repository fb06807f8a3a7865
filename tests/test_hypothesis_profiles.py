"""`make test` takes the same examples each time, `make test-all` many more of every property test."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROPERTIES = """
from hypothesis import given, settings
from hypothesis import strategies as st

@given(st.integers())
def test_default(n):
    print("default", n)

@settings(max_examples=7)
@given(st.integers())
def test_own(n):
    print("own", n)
"""


def examples(folder: Path, *options: str) -> list[str]:
    """What the tests above were given, in a run of pytest with the fixtures and profiles of this repository."""
    path = folder / "test_properties.py"
    path.write_text(PROPERTIES)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    command += ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={ROOT}", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.lstrip(".") for line in done.stdout.splitlines() if line.lstrip(".").startswith(("default ", "own "))]


def test_examples_are_the_same_in_each_run(tmp_path: Path) -> None:
    first, second = examples(tmp_path), examples(tmp_path)
    assert first == second
    assert (sum("default" in line for line in first), sum("own" in line for line in first)) == (100, 7)


@pytest.mark.slow
def test_the_long_profile_takes_twenty_times_as_many_of_every_test(tmp_path: Path) -> None:
    taken = examples(tmp_path, "--hypothesis-profile=long")
    assert (sum("default" in line for line in taken), sum("own" in line for line in taken)) == (2000, 140)
