"""What docs/architecture.md and docs/contributing.md say of files and modules, as far as a program can check it."""

import re
from functools import cache
from pathlib import Path

import pytest

from gateway.access.permissions import PAGES as PERMITTED
from gateway.pb import control_pb2

ROOT = Path(__file__).parents[1]
PAGES = ("docs/architecture.md", "docs/contributing.md")
_SKIPPED = re.compile(r"[<*]|^(v|data)/")  # places for a name, and no paths


def exists(name: str) -> bool:
    """Whether a path, seen from the root or from `gateway`, is a file, a module without its ending, or a folder."""
    return any((base / (name + ending)).exists() for base in (ROOT, ROOT / "gateway") for ending in ("", ".py"))


@pytest.mark.parametrize("page", PAGES)
def test_the_paths_that_a_page_names_are_there(page: str) -> None:
    named = re.findall(r"`([a-z_.]+(?:/[a-z_0-9.<>*]+)+)`", (ROOT / page).read_text("utf-8"))
    assert named
    assert not [name for name in named if not _SKIPPED.search(name) and not exists(name)]


@pytest.mark.parametrize("page", PAGES)
def test_the_modules_that_a_page_names_are_there(page: str) -> None:
    rooms = "|".join(sorted(path.name for path in (ROOT / "gateway").iterdir() if path.is_dir()))
    named = re.findall(rf"`((?:{rooms})(?:\.[a-z_]+)+)[`.]", (ROOT / page).read_text("utf-8"))
    parts = [name.split(".") for name in named if not name.endswith(".json")]
    # The last part may be a name in the module.
    assert not [part for part in parts if not exists("/".join(part)) and not exists("/".join(part[:-1]) + ".py")]


@pytest.mark.parametrize("path", sorted(PERMITTED))
def test_an_http_page_is_documented_and_tested(path: str) -> None:
    assert re.search(rf"{re.escape(path)}\b", (ROOT / "docs/architecture.md").read_text("utf-8"))
    pages = [page for page in (ROOT / "docs").glob("*.md") if page.name != "architecture.md"]
    assert any(re.search(rf"{re.escape(path)}\b", page.read_text("utf-8")) for page in [*pages, ROOT / "README.md"])
    asked = re.compile(rf"[\"' ]{re.escape(path)}[\"'? ]")
    assert asked.search(texts_of_tests("runtime", "page", "e2e", "access")), f"no test asks for {path}"


@pytest.mark.parametrize("method", sorted(control_pb2.DESCRIPTOR.services_by_name["Control"].methods_by_name))
def test_a_control_method_is_tested(method: str) -> None:
    assert re.search(rf"\.{method}\(|\"{method}\"", texts_of_tests("api", "access", "cli", "e2e")), (
        f"no test calls {method}"
    )


@cache
def texts_of_tests(*rooms: str) -> str:
    return "".join(
        path.read_text("utf-8") for room in rooms for path in sorted((ROOT / "tests" / room).glob("test_*.py"))
    )
