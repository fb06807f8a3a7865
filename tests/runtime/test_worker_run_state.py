"""What a worker shows of its runs, where the disk has no room for that."""

import subprocess
import sys
from pathlib import Path

from gateway.runtime.config_parser import parse
from tests.small_disk import fill, small_disk

# A page of a mapped file for which the disk has no room ends the process that writes to it, hence one of its own.
RUNS = """
import sys
from pathlib import Path
from gateway.runtime.config_parser import parse
from gateway.runtime.worker_run_state import make_run_state
from gateway.serving.run_page import LOOP_SLOT, VersionKey, page_path, unfinished_runs
config = parse({"data-dir": Path(sys.argv[1])}, {}, {})
page = make_run_state(config, "boot").page
page.enter(LOOP_SLOT, page.register(VersionKey("m", "1", "d")), [7])
print([run.key.model for run in unfinished_runs(page_path(config.run_dir, "boot"))])
"""


def shown(data: Path) -> str:
    """What others see of the run of a worker with that data directory."""
    done = subprocess.run([sys.executable, "-c", RUNS, data], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_worker_that_starts_on_a_full_disk_runs_and_is_not_seen(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with small_disk(data, "256k"):
        (parse({"data-dir": data}, {}, {}).run_dir / "running").mkdir(parents=True)
        fill(data)
        assert shown(data) == "[]\n"
    assert shown(data) == "['m']\n"
