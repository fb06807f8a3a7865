"""A load test as a user starts it, against the running product."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Demo
from tests.e2e.product import Product, environment

ROOT = Path(__file__).parents[2]


def load(
    product: Product, demo: Demo, scenario: str, *words: str, timeout_s: float = 120
) -> tuple[int, dict[str, Any], str]:
    """Exit code, the last line of the verdict as a value, and everything that was printed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "loadtests", scenario, "--server", product.server),
            *("--samples", str(demo.samples), *words),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment(),
    )
    everything = done.stdout + done.stderr
    verdicts = [line for line in done.stdout.splitlines() if line.startswith('{"requests"')]
    assert len(verdicts) == 1, everything
    return done.returncode, json.loads(verdicts[0]), everything
