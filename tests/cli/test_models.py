"""gateway models: whether requests are merged."""

import pytest

from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_wide_says_whether_requests_are_merged_and_why(shell: Shell) -> None:
    narrow, wide = await shell.done("models"), await shell.done("models", "-o", "wide")
    assert "MERGED" not in narrow
    assert "MERGED" in wide
    assert "yes: the graph shows that rows are independent" in wide
    merging = {(entry["model"], entry["version"]): entry["merging"] for entry in await shell.value("models")}
    assert {text.partition(":")[0] for text in merging.values()} <= {"yes", "no"}
