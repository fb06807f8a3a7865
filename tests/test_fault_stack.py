"""A test run that dies tells where."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_stack import build, end_of

ROOT = Path(__file__).parents[1]
DYING = """
import ctypes
import os

LIBC = ctypes.CDLL(None)


def test_well():
    pass


def test_python():
    ctypes.string_at(0)


def test_abort():
    os.abort()


def test_thread():
    thread = ctypes.c_ulong()
    LIBC.pthread_create(ctypes.byref(thread), None, LIBC.strlen, None)
    LIBC.pthread_join(thread, None)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no cc")
    return build(compiler, tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize(
    ("test", "ended_by", "shown"),
    [
        ("test_python", signal.SIGSEGV, ("_ctypes", "in string_at", "in test_python")),
        ("test_abort", signal.SIGABRT, ("libc", "in test_abort")),
        ("test_thread", signal.SIGSEGV, ("libc",)),
    ],
)
def test_a_run_that_dies_tells_where(
    library: Path, tmp_path: Path, test: str, ended_by: signal.Signals, shown: tuple[str, ...]
) -> None:
    module = tmp_path / "test_dying.py"
    module.write_text(DYING)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", tmp_path),
            *("-p", "no:faulthandler", "-p", "tests.fault_stack", f"{module}::test_well", f"{module}::{test}"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAULT_STACK": str(library), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == -ended_by
    said = end_of(ended)
    assert "_pytest" not in said
    for part in (".\nFatal signal", f"test test_dying.py::{test} (call)", *shown):
        assert part in said


def test_of_a_run_that_ends_by_itself_the_last_is_shown() -> None:
    """Also where a process below it has died: that is what such a test is about, or the test says so."""
    said = "\nFatal signal 6\n" + "a" * 20_000 + "b"
    assert end_of(subprocess.CompletedProcess((), 1, said)) == "a" * 8_999 + "b"
    assert end_of(subprocess.CompletedProcess((), 1, "")) == ""
