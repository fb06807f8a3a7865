"""What the client brings with it."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHEEL = tomllib.loads((ROOT / "gateway/client/pyproject.toml").read_text())
PROGRAM = "import gateway.client, json, sys; print(json.dumps(sorted(sys.modules)))"


def test_its_own_wheel_has_all_that_it_imports() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    packages = WHEEL["tool"]["setuptools"]["packages"]
    own = {name for name in loaded if name.startswith("gateway.")}
    assert {name for name in own if name not in packages and name.rpartition(".")[0] not in packages} == set()
    assert not {"msgspec", "onnxruntime", "redis", "pyarrow", "ngh2", "typer", "urllib3"} & set(loaded)


def test_it_needs_what_the_gateway_needs() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(WHEEL["project"]["dependencies"]) < set(whole["dependencies"])
    assert WHEEL["project"]["optional-dependencies"]["rest"] == whole["optional-dependencies"]["rest"]
    assert WHEEL["project"]["requires-python"] == whole["requires-python"]
