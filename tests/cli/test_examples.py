"""The route documents that the documentation shows."""

from pathlib import Path

import pytest

from gateway.routing.document.notation import parse_yaml

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"ab", "blue-green", "canary", "fallback", "pinned"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_one_route_of_a_demo_model(path: Path) -> None:
    [document] = parse_yaml(path.read_text())
    assert document.model == "digits"
    assert document.versions() <= {"1", "2"}
