"""gateway retire and gateway delete, by the rules of a real worker."""

import asyncio
from pathlib import Path
from shutil import rmtree

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.pb import control_pb2 as pb
from gateway.routing.document.document import RouteDocument
from tests.api.operated import BY
from tests.api.routes import ab, canary, route
from tests.cli.conftest import Shell
from tests.models import affine, write_version
from tests.serving.ensembles import Step, config, write_ensemble

pytestmark = pytest.mark.asyncio(loop_scope="session")


def only(version: str, **spec: object) -> RouteDocument:
    return route({"all": {"version": version}}, {"pinned": {"arm": "all"}}, **spec)


def models(shell: Shell) -> Path:
    return shell.worker.stand.repository


async def refused(shell: Shell, version: str, *, command: str = "retire", model: str = "affine") -> str:
    """Returns why a version is not retired; it is still in its place."""
    result = await shell.run(command, model, version, "--model-repository", str(models(shell)))
    assert result.exit_code == 1, result.output
    assert (models(shell) / model / version / "model.onnx").is_file()
    return " ".join(result.stderr.split())


async def test_what_the_route_names_is_refused_with_what_to_do(shell: Shell) -> None:
    await shell.worker.apply(ab(100, 0, labels={"old": "3"}, mirrors=[{"arm": "b", "percent": 10}]))
    why = await refused(shell, "1")
    assert why.startswith("gateway: FAILED_PRECONDITION: version '1' of model 'affine' is in use: the route of model")
    assert "arm 'a'" in why
    assert "gateway apply" in why
    assert "arm 'b' (a mirror)" in await refused(shell, "2")
    assert "label 'old'" in await refused(shell, "3")
    revision = await shell.worker.apply(only("4"))
    await shell.worker.apply(only("1", fallback={"order": ["all"]}))
    assert "(in its fallback)" in await refused(shell, "1")
    assert f"make revision {revision} active again" in await refused(shell, "4")


async def test_what_a_rollout_and_a_draft_name_is_refused(shell: Shell) -> None:
    await shell.worker.apply(only("3"))
    await shell.worker.apply(canary())
    assert "arm 'canary'" in await refused(shell, "2")
    await shell.worker.clear()
    await shell.worker.apply(only("3"))
    await shell.worker.apply(only("4"))
    request = pb.DraftRequest(document_json=only("1").to_json(), change=BY)
    draft = await shell.worker.stub.Draft(request)
    assert f"gateway draft reject {draft.id}" in await refused(shell, "1")
    await shell.worker.stub.Reject(pb.RejectRequest(id=draft.id, change=BY))


async def test_the_version_that_answers_without_a_route_is_refused(shell: Shell) -> None:
    said = await refused(shell, "1", model="other")
    # Tests before this one may have left it a route to go back to, which is then the use that is named.
    assert "answers everybody" in said or "a rollback of the route of model 'other' would make" in said


async def test_an_unused_version_is_retired_and_deleted_when_asked(shell: Shell) -> None:
    place = ("--model-repository", str(models(shell)))
    model = models(shell) / "affine"
    (model / "9").mkdir()
    (model / "9" / "model.onnx").write_bytes((model / "1" / "model.onnx").read_bytes())
    await shell.worker.apply(only("1"))
    await shell.worker.apply(only("2"))
    assert "is not retired" in await refused(shell, "9", command="delete")
    value = await shell.value("retire", "affine", "9", "--reason", "tried", *place)
    assert [(one["version"], one["reason"]) for one in value] == [("9", "tried")]
    assert not (model / "9").exists()
    await shell.done("retire", "affine", "9", "--undo", *place)
    assert (model / "9" / "model.onnx").is_file()
    await shell.done("retire", "affine", "9", *place)
    unasked = await shell.run("delete", "affine", "9", *place)
    assert (unasked.exit_code, "--yes" in unasked.stderr) == (1, True)
    assert (model / ".retired" / "9" / "model.onnx").is_file()
    [gone] = await shell.value("delete", "affine", "9", "--yes", *place)
    assert gone["deleted_at"] > 0
    assert not (model / ".retired" / "9").exists()


async def test_a_version_that_an_ensemble_pins_is_refused(shell: Shell) -> None:
    place = ("--model-repository", str(models(shell)))
    for version in "78":
        write_version(models(shell), "affine", version, affine())
    await shell.worker.apply(only("1"))
    await shell.worker.apply(only("2"))
    write_ensemble(
        models(shell), "whole", config(Step("other", outputs={"y": "z"}), Step("affine", {"x": "z"}, version=7))
    )
    try:
        assert "step 2 of the ensemble 'whole' pins it" in await refused(shell, "7")
        await shell.done("retire", "affine", "8", *place)
        write_ensemble(models(shell), "whole", config(Step("affine", version=8)))
        undeleted = await shell.run("delete", "affine", "8", "--yes", *place)
        assert (undeleted.exit_code, "step 1 of the ensemble 'whole'" in undeleted.stderr) == (1, True)
        write_ensemble(models(shell), "whole", f"{config(Step('affine'))} }}")
        assert "nobody can tell whether an ensemble pins version '7': whole/config.pbtxt: " in await refused(shell, "7")
        write_ensemble(models(shell), "whole", config(Step("affine")))  # the rules decide, which name neither
        await shell.done("retire", "affine", "7", *place)
    finally:
        rmtree(models(shell) / "whole")


async def test_an_ensemble_of_another_repository_of_the_gateway_is_seen(shell: Shell, tmp_path: Path) -> None:
    for version in "67":
        write_version(tmp_path, "affine", version, affine())
    await shell.worker.apply(only("1"))
    await shell.worker.apply(only("2"))
    text = config(Step("absent", outputs={"y": "z"}), Step("affine", {"x": "z"}, version=7))  # it does not even serve
    write_ensemble(models(shell), "afar", text)
    catalog = shell.worker.stand.catalog
    await catalog.poll()
    place = ("--model-repository", str(tmp_path))
    try:
        refusal = await shell.run("retire", "affine", "7", *place)
        assert refusal.exit_code == 1
        said = " ".join(refusal.stderr.split())
        assert f"step 2 of the ensemble 'afar' (repository {models(shell)}) pins it" in said
        await shell.done("retire", "affine", "6", *place)
        write_ensemble(models(shell), "afar", text.replace("7", "6"))
        await catalog.poll()
        undeleted = await shell.run("delete", "affine", "6", "--yes", *place)
        assert (undeleted.exit_code, "step 2 of the ensemble 'afar'" in undeleted.stderr) == (1, True)
    finally:
        rmtree(models(shell) / "afar")
        await catalog.poll()


async def test_without_rules_nothing_is_done_unless_the_risk_is_named(tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    words = ["retire", "m", "1", "--model-repository", str(tmp_path), "--server", "127.0.0.1:1"]
    refusal = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert refusal.exit_code == 3
    assert ". Nobody can tell" in refusal.stderr
    assert "\\n" not in refusal.stderr
    assert "--may-break-routes" in refusal.stderr
    assert version.is_dir()
    done = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--may-break-routes"])
    assert done.exit_code == 0, done.output
    assert not version.exists()


async def test_a_gateway_that_does_not_know_the_model_tells_nothing_about_it(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    result = await shell.run("retire", "m", "1", "--model-repository", str(tmp_path))
    assert (result.exit_code, "does not know model 'm'" in result.stderr) == (1, True)
    assert (tmp_path / "m" / "1").is_dir()
