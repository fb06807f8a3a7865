"""Each example of docs/your-own-model.md, as it stands there, and of ensembles: trained, written, found and asked."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.e2e.product import Product, environment

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "your-own-model.md").read_text()
EXAMPLES = dict(re.findall(r"## ([\w-]+)\n.*?```python\n(.*?)```", PAGE, re.DOTALL))
NEEDED = {"scikit-learn": ("skl2onnx",), "LightGBM": ("lightgbm", "onnxmltools"), "PyTorch": ("torch", "onnxscript")}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    directory = tmp_path_factory.mktemp("own")
    (directory / "models").mkdir()
    made = Product(directory, directory / "models").start()
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


def test_the_page_of_ensembles_shows_the_configuration_that_runs() -> None:
    config = (DOCS / "examples" / "ensembles" / "config.pbtxt").read_text()
    assert f"```protobuf\n{config}```" in (DOCS / "ensembles.md").read_text()
