"""The tables of docs/operating.md about requests, against the code."""

import re
from pathlib import Path

import pytest

from gateway import errors
from gateway.api.parameters import KNOWN
from gateway.errors import Code, GatewayError

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
TYPES = {"bool_param": "flag", "string_param": "text", "int64_param": "integer", "uint64_param": "integer"}


def rows(head: str) -> dict[str, list[str]]:
    """The table under this head, by its first column."""
    table = PAGE.partition(f"\n| {head} |\n")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[1:]]
    return {first.strip("` "): rest for first, *rest in cells}


def tree(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


CODES = rows("code | when | try again?")
PARAMETERS = rows("parameter | type | what it does")


def test_the_page_has_every_code() -> None:
    assert list(CODES) == [code.name for code in Code if code is not Code.OK]


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_it_says_whether_to_try_again(code: Code) -> None:
    retryable = {error.retryable for error in tree() if error.code is code and error.__module__ == errors.__name__}
    assert len(retryable) == 1
    again = CODES[code.name][-1]
    assert (again == "yes" or "grpc-retry-pushback-ms" in again) == retryable.pop()


def test_the_page_has_every_parameter_with_its_type() -> None:
    assert set(PARAMETERS) == set(KNOWN)
    for name, (kind, _) in PARAMETERS.items():
        expected = KNOWN[name]
        said = set(re.findall(r"flag|text|integer", kind.replace("microseconds", "integer")))
        assert said == {TYPES[one] for one in expected.kinds}, name
        assert ("from 0" in kind) == (not expected.negative), name
