"""What docs/architecture.md and docs/contributing.md say of files and modules, as far as a program can check it."""

import re
from pathlib import Path

import pytest

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
