"""The examples of docs/your-own-model.md and of ensembles, as they stand there: trained, found and asked; features."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import redis

from gateway.client import Client
from tests.e2e.product import Product, environment
from tests.features.views import USERS, write_view
from tests.valkey import Valkey

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "your-own-model.md").read_text()
EXAMPLES = dict(re.findall(r"## ([\w-]+)\n.*?```python\n(.*?)```", PAGE, re.DOTALL))
NEEDED = {"scikit-learn": ("skl2onnx",), "LightGBM": ("lightgbm", "onnxmltools"), "PyTorch": ("torch", "onnxscript")}


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Valkey(tmp_path_factory.mktemp("features"), append_only=False).start()
    with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
        client.hset("user:1", mapping={"score": "0.25"})
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp("own")
    write_view(directory / "models", "users", {**USERS, "store": "shop", "deadline_ms": "1000", "default.score": "-1"})
    made = Product(directory, directory / "models", "--feature-store", f"shop={redis_url}").start()
    yield made
    made.kill()


def test_each_library_has_an_example() -> None:
    assert set(EXAMPLES) == set(NEEDED)


@pytest.mark.parametrize("library", NEEDED)
def test_the_example_runs(serving: Product, library: str) -> None:
    if missing := [module for module in NEEDED[library] if find_spec(module) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    program = EXAMPLES[library].replace("127.0.0.1:8001", serving.server)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=serving.directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "the same answers" in done.stdout


@pytest.mark.parametrize(("program", "said"), [("wine", "the same answers"), ("price", "three requests")])
def test_the_example_of_an_ensemble_runs(serving: Product, program: str, said: str) -> None:
    if program == "wine" and find_spec("skl2onnx") is None:
        pytest.skip("needs skl2onnx")
    done = subprocess.run(
        [sys.executable, str(DOCS / "examples" / "ensembles" / f"{program}.py"), "models", serving.server],
        cwd=serving.directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_a_feature_view_is_looked_up_in_the_store_that_the_command_names(serving: Product) -> None:
    with Client(serving.server) as client:
        answer = client.infer("users", {"user_id": np.array([[1], [2]])})
        assert answer["score"].tolist() == [[0.25], [-1.0]]
    looks = sum(figure for name, figure in serving.metrics().items() if name.startswith("gateway_feature_rows_total"))
    assert looks == 2


def test_the_page_of_ensembles_shows_the_configuration_that_runs() -> None:
    config = (DOCS / "examples" / "ensembles" / "config.pbtxt").read_text()
    assert f"```protobuf\n{config}```" in (DOCS / "ensembles.md").read_text()
