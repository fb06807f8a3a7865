"""The whole benchmark once, for a second: that it works from end to end. Speed is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.bench import h2load

COMMAND = (sys.executable, "-m", "loadtests.bench")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not h2load.installed(), reason=h2load.MISSING)
def test_a_pair_is_measured_and_reported(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *COMMAND, *("--models", "tiny", "--concurrency", "16", "--seconds", "1", "--rounds", "1", "--tries", "1"),
            *("--systems", "gateway,guarded,aio", "--json", str(figures), "--work", str(tmp_path / "work")),
        ],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "grpc.aio" in done.stdout
    content = json.loads(figures.read_text())
    gateway, guarded, bare = content["runs"]
    assert [run["system"] for run in content["runs"]] == ["gateway", "gateway with a token", "grpc.aio"]
    for run in (gateway, guarded, bare):
        assert run["fault"] == ""
        assert run["requests"] > 16
        assert run["cpu_us"] > 0
        assert 0 < run["p50_ms"] <= run["p99_ms"]
        assert run["rss_mib"] > 10
    assert 0 < gateway["workers_us"] <= gateway["cpu_us"]
    assert content["summaries"][1]["ratios"]["cpu_us"] > 0
    assert content["log"][0]["calls"] >= gateway["requests"]
    # The log was on: what was sent lies in the lake.
    assert list((tmp_path / "work" / "gateway" / "log" / "lake").rglob("*.parquet"))


def test_without_h2load_the_package_is_named() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=50, check=False, env={"PATH": "/nowhere"})
    assert done.returncode == 2
    assert "nghttp2-client" in done.stderr


def test_models_can_be_made_alone(tmp_path: Path) -> None:
    command = [*COMMAND, "--only-models", "--work", str(tmp_path), "--models", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "tiny" / "2" / "model.onnx").is_file()
    assert "version_policy" in (tmp_path / "models" / "tiny" / "config.pbtxt").read_text()
