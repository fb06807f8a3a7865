"""Deadlines, heartbeats and quotas count seconds; a clock that somebody sets is for what people read."""

import ast
from pathlib import Path

import pytest

GATEWAY = Path(__file__).parents[2] / "gateway"
COUNTS_SECONDS = sorted(
    [
        *(GATEWAY / "rpc").glob("*.py"),
        *(GATEWAY / "access").glob("quota*.py"),
        *(
            GATEWAY / "runtime" / name
            for name in ("liveness.py", "child.py", "child_process.py", "memory_kills.py", "post_mortem.py")
        ),
        *(
            GATEWAY / "serving" / name
            for name in ("admission.py", "batcher.py", "queue_wait.py", "refusals.py", "run_quarantine.py")
        ),
    ]
)
WALL = {"time", "time_ns"}
# Certificates begin and end by the calendar.
OF_CERTIFICATES = {"server_certificate.py"}


def read(path: Path) -> set[str]:
    """The functions of the module `time` that are imported or called there."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            names.add(node.attr)
    return names


@pytest.mark.parametrize("path", COUNTS_SECONDS, ids=lambda path: str(path.relative_to(GATEWAY)))
def test_what_counts_seconds_does_not_read_a_clock_that_somebody_sets(path: Path) -> None:
    assert path.name in OF_CERTIFICATES or not read(path) & WALL


def test_a_clock_that_is_read_is_seen(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("import time\nfrom time import time_ns\nprint(time.time(), time.monotonic())\n")
    assert read(tmp_path / "module.py") == {"time", "time_ns", "monotonic"}
