"""docs/reference/ is what its generator makes of the code."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_generator", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_what_the_code_says(generator: ModuleType) -> None:
    pages: dict[str, str] = generator.pages()
    assert {path.name for path in FOLDER.iterdir() if path.suffix != ".py" and path.is_file()} == set(pages)
    for name, content in pages.items():
        assert (FOLDER / name).read_text() == content, f"docs/reference/{name} is stale: run `make reference`"


def test_every_code_has_a_remedy(generator: ModuleType) -> None:
    codes = {code.name for code in generator.Code} - {"OK"}
    assert {code.name for code in generator.REMEDIES} == codes
