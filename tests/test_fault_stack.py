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


def test_broken_stack():
    ctypes.CDLL(os.environ["BROKEN_STACK"]).die_on_a_broken_stack()
"""
# A thread that takes the memory from under its own frames, though not that which its library keeps above them: it
# faults, as it returns from that, and whoever looks who called it does as well.
BROKEN = """
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

enum { STACK = 1 << 20, KEPT = 1 << 16, DEPTH = 1 << 17 };

static char handled_on[1 << 17];

static void *take_away(void *stack) {
    stack_t other = {.ss_sp = handled_on, .ss_size = sizeof handled_on};
    volatile char frame[DEPTH];
    frame[0] = 0;
    sigaltstack(&other, NULL);
    munmap(stack, STACK - KEPT);
    return (void *)(long)frame[0];
}

void die_on_a_broken_stack(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, STACK);
    pthread_create(&thread, &attributes, take_away, stack);
    pthread_join(thread, NULL);
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is built of C, as the environment of a run names it."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no cc")
    folder = tmp_path_factory.mktemp("libraries")
    broken = folder / "broken.so"
    command = [compiler, "-O0", "-shared", "-fPIC", "-pthread", "-x", "c", "-o", str(broken), "-"]
    subprocess.run(command, input=BROKEN, text=True, check=True)
    return {"FAULT_STACK": str(build(compiler, folder)), "BROKEN_STACK": str(broken)}


@pytest.mark.parametrize(
    ("test", "ended_by", "shown"),
    [
        ("test_python", signal.SIGSEGV, ("_ctypes", "in string_at", "in test_python")),
        ("test_abort", signal.SIGABRT, ("libc", "in test_abort")),
        ("test_thread", signal.SIGSEGV, ("libc",)),
        ("test_broken_stack", signal.SIGSEGV, ("Fatal Python error: Segmentation fault",)),
    ],
)
def test_a_run_that_dies_tells_where(
    built: dict[str, str], tmp_path: Path, test: str, ended_by: signal.Signals, shown: tuple[str, ...]
) -> None:
    module = tmp_path / "test_dying.py"
    module.write_text(DYING)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", tmp_path),
            *("-p", "no:faulthandler", "-p", "tests.fault_stack", f"{module}::test_well", f"{module}::{test}"),
        ],
        env={**os.environ, **built, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == -ended_by
    assert ended.stdout.count("\nFatal signal ") == 1
    said = end_of(ended)
    assert "_pytest" not in said
    for part in (".\nFatal signal", f"test test_dying.py::{test} (call)", *shown):
        assert part in said


def test_of_a_run_that_ends_by_itself_the_last_is_shown() -> None:
    """Also where a process below it has died: that is what such a test is about, or the test says so."""
    said = "\nFatal signal 6\n" + "a" * 20_000 + "b"
    assert end_of(subprocess.CompletedProcess((), 1, said)) == "a" * 8_999 + "b"
    assert end_of(subprocess.CompletedProcess((), 1, "")) == ""
