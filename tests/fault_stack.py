"""A pytest plugin for code that may end the process: it tells which test ran, and the stack of the thread at fault.

pytest's own shows the Python stacks of all threads: hundreds of lines, and none of a thread that Python did not start.
It wants `-p no:faulthandler` beside it.
"""

import ctypes
import faulthandler
import os
import re
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
MARK = "\nFatal signal "
NOISE = re.compile(r"Extension modules: |  File .*/(_pytest|pluggy)/")  # which tells nothing, of many lines
HEAD, TAIL, LINES = 3_000, 9_000, 80


def build(compiler: str, folder: Path) -> Path:
    """Returns the native half of the plugin, built in the folder; FAULT_STACK in the environment names it."""
    library = folder / "fault_stack.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-pthread", "-o", library, SOURCE], check=True)
    return library


def end_of(run: subprocess.CompletedProcess[str]) -> str:
    """Returns what was printed last and what tells the cause of a crash, short enough to be read in a log of CI."""
    before, mark, crash = run.stdout.rpartition(MARK)
    if run.returncode >= 0 or not mark:
        return run.stdout[-TAIL:]
    lines = [line for line in crash.splitlines() if not NOISE.match(line)]
    return before[-HEAD:] + mark + "\n".join(lines[:LINES])


def pytest_configure() -> None:
    """Faults are told from here on, where standard error led when pytest began."""
    faulthandler.enable(_stderr, all_threads=False)
    ctypes.CDLL(os.environ["FAULT_STACK"]).tell_of_faults(_stderr)


_stderr = os.dup(2)  # while it is imported: pytest has not taken it yet
