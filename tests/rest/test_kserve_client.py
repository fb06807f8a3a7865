"""KServe's own client, on both of its protocols."""

import asyncio
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.api.stand import Stand

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROOT = Path(__file__).parents[2]
PACKAGES = Path(sys.prefix) / "kserve"  # where the Makefile puts the client and what it needs


@pytest.mark.skipif(not PACKAGES.is_dir(), reason="`make test` could not install KServe's client")
async def test_the_client_of_kserve(stand: Stand) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.rest.kserve_program", f"http://127.0.0.1:{stand.rest_port}"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{PACKAGES}:{ROOT}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, said = await child.communicate()
    assert child.returncode == 0, said.decode()
    got = json.loads(printed)
    rows = (np.arange(8, dtype=np.float32).reshape(2, 4) * 3).tolist()  # the newest version's
    assert got["v2"] == {"live": True, "ready": True, "model": True, "nobody": False, "rows": [rows, rows]}
    assert got["v1"] == {"live": True, "model": True, "answer": {"predictions": rows}}
