"""gateway models: whether requests are merged."""

import pytest

from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_wide_says_whether_requests_are_merged_and_why(shell: Shell) -> None:
    narrow, wide = await shell.done("models"), await shell.done("models", "-o", "wide")
    assert "MERGED" not in narrow
    assert "MERGED" in wide
    assert "yes: the graph shows that rows are independent" in wide
    merging = {
        (entry["model"], entry["version"]): entry["merging"]
        for entry in await shell.value("models")
        if entry["state"] == "AVAILABLE"
    }
    assert {text.partition(":")[0] for text in merging.values()} <= {"yes", "no"}


async def test_wide_says_where_a_version_comes_from(shell: Shell) -> None:
    narrow, wide = await shell.done("models"), await shell.done("models", "-o", "wide")
    assert "SOURCE" not in narrow
    assert str(shell.worker.stand.repository) in wide
    entries = [entry for entry in await shell.value("models") if entry["state"] == "AVAILABLE"]
    assert entries
    for entry in entries:
        assert entry["source"] == str(shell.worker.stand.repository)
        assert entry["size_bytes"] > 0
        assert entry["trial_memory_bytes"] > 0
        assert entry["signature"] == "none"


async def test_each_folder_that_is_passed_over_has_a_line_of_its_own(shell: Shell) -> None:
    stray = shell.worker.stand.repository / "notes.txt"
    stray.write_text("no model")
    try:
        await shell.worker.stand.catalog.poll()
        lines = (await shell.done("models")).splitlines()
        entries = await shell.value("models")
    finally:
        stray.unlink()
        await shell.worker.stand.catalog.poll()
    assert [line for line in lines if line.startswith("passed over: notes.txt: ")]
    assert not [line for line in lines if r"\n" in line]
    (passed,) = [entry for entry in entries if "passed_over" in entry]
    assert (passed["passed_over"], passed["state"]) == ("notes.txt", "PASSED_OVER")
    assert passed["reason"] == "a file: models are directories"
    assert passed.keys() - {"passed_over"} == entries[0].keys()


async def test_a_repository_that_cannot_be_read_is_told(shell: Shell) -> None:
    stand = shell.worker.stand
    away = stand.repository.rename(stand.repository.with_name("away"))
    try:
        await stand.catalog.poll()
        lines = (await shell.done("models")).splitlines()
        entries = await shell.value("models")
    finally:
        away.rename(stand.repository)
        await stand.catalog.poll()
    assert [line for line in lines if line.startswith("models stay as they are: the model repository cannot be listed")]
    (told,) = [entry for entry in entries if "trouble" in entry]
    assert (told["model"], told["version"], told["state"]) == ("", "", "UNREADABLE")
    assert told["reason"].startswith("the model repository cannot be listed")
    assert told.keys() - {"trouble"} == entries[0].keys()
    assert "stay as they are" not in await shell.done("models")


async def test_a_model_that_is_not_there_is_an_error_that_names_those_that_are(shell: Shell) -> None:
    for output in ("table", "wide", "json"):
        result = await shell.run("models", "nosuch", "-o", output)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "there is no model 'nosuch'; there are: " in result.stderr
        assert {entry["model"] for entry in await shell.value("models") if "passed_over" not in entry} <= set(
            result.stderr.partition("there are: ")[2].strip().split(", ")
        )
