"""What every request runs through is compiled: seen on real requests, compared with the list in `setup.py`."""

import asyncio
import runpy
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest

from gateway.api.feedback_token import KEY_BYTES, Tokens
from gateway.routing.decision.route import propose
from gateway.routing.decision.snapshot import Snapshot
from tests import models
from tests.api.calls import good
from tests.api.routes import ab
from tests.api.stand import standing

ROOT = Path(__file__).parents[1]
# Run in every request and stay interpreted: the servicer derives from generated code, which mypyc does not allow, and a
# request makes one dictionary look-up in the registry.
INTERPRETED = {"gateway/api/inference.py", "gateway/serving/registry.py"}
CALLS = 200  # so many that what runs twenty times a second does not come near, also where a call takes long


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The modules that `setup.py` compiles."""
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    return set(runpy.run_path(str(ROOT / "setup.py"))["MODULES"])


def test_each_module_that_is_to_be_compiled_exists(compiled: set[str]) -> None:
    assert not [module for module in compiled if not (ROOT / module).is_file()]


async def test_what_every_request_runs_through_is_compiled(tmp_path: Path, compiled: set[str]) -> None:
    repository = tmp_path / "models"
    config = "max_batch_size: 64\ndynamic_batching {}\nversion_policy { all {} }"
    for version, slope in (("1", 2.0), ("2", 3.0)):
        models.write_version(repository, "affine", version, models.affine(slope), config=config)
    runs: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            runs[frame.f_code.co_filename] += 1

    async with standing(repository, tmp_path, probes=tmp_path / "probes", tokens=Tokens(b"k" * KEY_BYTES)) as stand:
        stand.rules.snapshot = Snapshot.of("tests", 1, (propose(ab(), None),))

        async def ask() -> None:
            for user in range(CALLS // 4):
                await stand.stub.ModelInfer(good(version=""), metadata=(("x-user-id", f"user-{user}"),))

        await asyncio.gather(*(ask() for _ in range(4)))
        sys.setprofile(count)
        try:
            await asyncio.gather(*(ask() for _ in range(4)))
        finally:
            sys.setprofile(None)
    every = {
        str(Path(name).relative_to(ROOT))
        for name, calls in runs.items()
        if calls >= CALLS and Path(name).is_relative_to(ROOT / "gateway")
    }
    assert every, "no request was seen"
    assert every - compiled == INTERPRETED
