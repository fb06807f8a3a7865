"""Documents as files: exported, applied by the directory, drafted."""

import json
import re
from dataclasses import replace

import pytest
import yaml

from gateway.routing.document.document import parse
from tests.api.routes import ab, canary, pinned
from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHER = parse(
    {
        "apiVersion": "gateway/v1",
        "kind": "Route",
        "metadata": {"model": "other"},
        "spec": {"arms": {"a": {"version": "1"}}, "strategy": {"pinned": {"arm": "a"}}},
    }
)


async def test_what_is_exported_can_be_imported(shell: Shell) -> None:
    await shell.worker.apply(canary(step=1))
    await shell.worker.apply(OTHER)
    for form in ("yaml", "json"):
        file = shell.directory / f"all.{form}"
        await shell.done("export", "-f", str(file), "-o", form)
        assert [change["unchanged"] for change in await shell.value("import", "-f", str(file))] == [True, True]
        await shell.worker.clear()
        assert "would be committed" in await shell.done("import", "-f", str(file), "--dry-run")
        changes = await shell.value("import", "-f", str(file))
        assert {change["model"] for change in changes} == {"affine", "other"}
    assert await shell.worker.document() == canary(step=1).to_json()
    assert list(yaml.safe_load_all(await shell.done("export"))) == [canary(step=1).to_value(), OTHER.to_value()]
    directory = shell.directory / "routes"
    directory.mkdir()
    await shell.done("export", "-f", str(directory))
    assert sorted(path.name for path in directory.iterdir()) == ["affine.yaml", "other.yaml"]


async def test_a_directory_is_applied_and_pruned(shell: Shell) -> None:
    await shell.worker.apply(ab())
    shell.write("routes/team/other.yaml", OTHER)
    directory = str(shell.directory / "routes")
    dry = await shell.done("routes", "apply", "-f", directory, "--prune", "--dry-run")
    assert re.search(r"affine +\d+ +would be deleted", dry)
    result = await shell.run("routes", "apply", "-f", directory, "--prune", text="n\n")
    assert (result.exit_code, "say --yes" in result.stderr) == (2, True)
    assert [entry["document"]["metadata"]["model"] for entry in (await shell.value("status"))["routes"]] == ["affine"]
    changes = await shell.value("routes", "apply", "-f", directory, "--prune", "--yes")
    assert [(change["model"], change.get("deleted", False)) for change in changes] == [
        ("other", False),
        ("affine", True),
    ]
    assert [entry["document"]["metadata"]["model"] for entry in (await shell.value("status"))["routes"]] == ["other"]


async def test_of_several_documents_all_are_checked_before_one_is_committed(shell: Shell) -> None:
    bad = replace(
        pinned(), arms=tuple(replace(arm, version="9" if arm.name == "stable" else "2") for arm in pinned().arms)
    )
    shell.write("routes/a.yaml", OTHER)
    shell.write("routes/b.yaml", bad)
    result = await shell.run("routes", "apply", "-f", str(shell.directory / "routes"))
    assert (result.exit_code, "'9'" in result.stderr) == (1, True)
    assert json.loads(await shell.done("routes", "list", "-o", "json"))["routes"] == []
    shell.write("routes/c.yaml", OTHER)
    result = await shell.run("routes", "apply", "-f", str(shell.directory / "routes"))
    assert (result.exit_code, "has a document in" in result.stderr) == (2, True)
    result = await shell.run("routes", "apply", "-f", str(shell.directory / "routes" / "a.yaml"), "--prune")
    assert (result.exit_code, "is no directory" in result.stderr) == (2, True)


async def test_a_draft_is_written_shown_and_withdrawn(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    await shell.worker.apply(ab(90, 10))
    file = shell.write("draft.yaml", ab(50, 50))
    draft = await shell.value("draft", "write", "-f", file, "--reason", "half and half")
    name = draft["id"]
    assert f"{name}   1      affine   open" in await shell.done("draft", "list")
    shown = yaml.safe_load(await shell.done("draft", "show", name))
    assert shown["document"] == ab(50, 50).to_value()
    result = await shell.run("draft", "approve", name)
    assert (result.exit_code, "PERMISSION_DENIED" in result.stderr) == (1, True)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert "applied as revision" in await shell.done("draft", "approve", name, "--edit", "1")
    again = await shell.value("draft", "write", "-f", file)
    rejected = await shell.value("draft", "reject", again["id"], "--reason", "no")
    assert (rejected["state"], rejected["decided_by"]) == ("rejected", "somebody-else")
