"""docs/security.md says of every method and page what the table of permissions says."""

import re
from pathlib import Path

from gateway.access.permissions import PAGES, PERMISSIONS, Permission
from gateway.access.principal import INCLUDED, Role, or_words

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")


def row(path: str, permission: Permission) -> str:
    service, _, name = path.removeprefix("/").rpartition("/")
    needed = or_words(permission.roles) or "none"
    shown = path if path in PAGES else f"{service}/{name}"
    return f"| `{shown}` | {needed} | {permission.scope} |"


def test_every_method_and_page_is_in_the_table() -> None:
    """`python -m tests.access.test_security_page` prints the rows anew."""
    rows = re.findall(r"^\| `[^`]*/[^`]*` \| .* \| .* \|$", PAGE, re.MULTILINE)
    assert rows == [row(path, permission) for path, permission in PERMISSIONS.items()]


def test_every_role_is_described_with_what_it_includes() -> None:
    described = dict(re.findall(r"^\| `([a-z]+)` \| ([a-z, ]+) \| .+ \|$", PAGE, re.MULTILINE))
    assert described == {role.value: ", ".join(one for one in Role if one in INCLUDED[role]) for role in Role}


if __name__ == "__main__":
    print("\n".join(row(path, permission) for path, permission in PERMISSIONS.items()))
