"""Prometheus' own tool: Debian's, in the PATH or where `make test` has put it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Beside the interpreter of the virtual environment, whose folder may be linked from elsewhere.
_PLACES = (Path(sys.prefix) / "promtool" / "promtool", Path(sys.executable).parents[1] / "promtool" / "promtool")
PROMTOOL = shutil.which("promtool") or next((str(place) for place in _PLACES if place.exists()), None)
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool (Debian's package prometheus)")


def promtool(*arguments: str) -> None:
    """Runs it; what it says is the failure."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=50)
    assert not done.returncode, done.stdout + done.stderr
