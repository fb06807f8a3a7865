"""A server that has the protocol's own methods and no others is all that a load test needs."""

import asyncio
import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.loadtests.foreign import Foreign, foreign
from tests.loadtests.load_page import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_scenario_asks_a_server_for_nothing_but_metadata_and_inferences(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.arange(40, dtype=np.float32).reshape(10, 4))
    report, cwd = tmp_path / "report", tmp_path / "cwd"
    cwd.mkdir()
    async with foreign(Foreign()) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loadtests", "run", "steady", "--server", server.address, "--model", "m",
            "--seconds", "1", "--warm-up", "0", "--rate", "50", "--rows", "5",
            "--inputs", str(tmp_path / "inputs.npz"), "--report", str(report),
            "--budget", "failures=0%", "--budget", "p50=5s", "--budget", "throughput=10%",
            cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        text, _ = await process.communicate()
    assert process.returncode == 0, text.decode()
    service = "/inference.GRPCInferenceService"
    assert server.methods == {f"{service}/ModelMetadata", f"{service}/ModelInfer"}
    said = json.loads((report / "report.json").read_text())
    assert 0 < said["figures"]["all"]["right"] == said["figures"]["all"]["offered"] == server.calls
    assert said["figures"]["all"]["versions"] == {"7": server.calls}
    assert ElementTree.parse(report / "junit.xml").getroot().find(".//failure") is None
    assert "HELD" in (report / "report.html").read_text().upper()
    assert not list(cwd.iterdir())
