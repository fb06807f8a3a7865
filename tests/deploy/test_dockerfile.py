"""The Dockerfile: what it says, and its stages carried out where no engine is there."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.runtime.options import OPTIONS
from tests import models
from tests.deploy.dockerfile import Build, Stage, command, minimal_debian, read, run
from tests.deploy.published_schemas import ROOT
from tests.e2e.product import until
from tests.machine_load import as_loaded

TEXT = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read(TEXT)


def test_what_is_installed_is_what_the_tests_ran_with(stages: list[Stage]) -> None:
    build, final = stages
    assert build.environment["PIP_CONSTRAINT"] == "/src/constraints.txt"
    copied = [rest.split() for word, rest in build.steps if word == "COPY"]
    assert ["pyproject.toml", "setup.py", "README.md", "constraints.txt", "./"] in copied
    assert build.base == final.base


def test_what_runs_has_no_compiler_and_is_nobody(stages: list[Stage]) -> None:
    final = stages[-1]
    assert final.user == "10001:10001"
    assert final.steps.index(("USER", final.user)) > max(
        index for index, (word, _) in enumerate(final.steps) if word in ("RUN", "COPY")
    )
    assert not [rest for word, rest in final.steps if word == "RUN" and re.search(r"\bgcc\b|build-essential", rest)]
    assert final.entrypoint == ["tini", "--", "gateway"]
    assert final.command == ["serve"]
    assert set(final.volumes) == {final.environment["GATEWAY_DATA_DIR"]}


def test_nothing_is_baked_in_that_lets_strangers_in(stages: list[Stage]) -> None:
    given = {name for name in stages[-1].environment if name.startswith("GATEWAY_")}
    assert given <= {option.environment_name for option in OPTIONS}
    assert given == {
        *("GATEWAY_HOST", "GATEWAY_MODEL_REPOSITORY", "GATEWAY_DATA_DIR", "GATEWAY_GRACE_SECONDS"),
    }


def test_the_ports_that_are_exposed_are_those_of_the_options(stages: list[Stage]) -> None:
    defaults = {option.default for option in OPTIONS if option.name in ("grpc-port", "http-port", "metrics-port")}
    assert set(stages[-1].ports) == defaults


def test_the_health_check_names_no_port(stages: list[Stage]) -> None:
    assert stages[-1].health == ["python", "-P", "-m", "gateway.runtime.health_check"]


def test_an_instruction_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="ADD"):
        read("FROM scratch\nADD https://example.org/x /x\n")


def _can_build() -> str:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "carrying out a Dockerfile needs root on Linux"
    missing = [program for program in ("debootstrap", "unshare", "chroot") if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False, capture_output=True).returncode:
        return "this host lets nobody make namespaces"
    return ""


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_stages_make_an_image_that_serves_and_stops(stages: list[Stage], tmp_path: Path) -> None:
    if why := _can_build():
        pytest.skip(why)
    build, final = stages
    base = tmp_path / "base"
    minimal_debian(base, build.base.rpartition("-")[2])
    making = Build(tmp_path, ROOT, base)
    making.stage(build)
    root = making.stage(final)

    # Compiled, and of the versions that the tests ran with.
    environment = final.environment
    said = run(
        root, ["python", "-c", "from gateway.runtime.build import is_compiled; print(is_compiled())"], environment
    )
    assert said.stdout.strip() == "True"
    said = run(root, ["python", "-m", "pip", "freeze", "--all"], environment)
    constraints = dict(_pinned((ROOT / "constraints.txt").read_text()))
    installed = dict(_pinned(said.stdout))
    assert "numpy" in installed
    assert {name: version for name, version in installed.items() if constraints.get(name, version) != version} == {}
    # The venv brings the first two; redis wants the third of a Python as old as the one that stands in for the image's.
    assert installed.keys() - constraints.keys() <= {"pip", "setuptools", "async-timeout"}

    # Nobody has said who may connect.
    refused = subprocess.run(
        _start(root, final, {}, tmp_path), capture_output=True, text=True, check=False, timeout=as_loaded(60)
    )
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr

    # It serves from a read-only root, is healthy at the port that it has, and stops before docker would kill it.
    models.write_version(tmp_path / "models", "affine", "1", models.affine(2.0))
    options = {
        "GATEWAY_INSECURE": "true",
        "GATEWAY_METRICS_PORT": "0",
        "GATEWAY_GRPC_PORT": "0",
        "GATEWAY_HTTP_PORT": "-1",
        "GATEWAY_WORKERS": "1",
    }
    health = final.health
    with subprocess.Popen(_start(root, final, options, tmp_path), stderr=subprocess.PIPE, text=True) as running:
        try:
            until(lambda: _inside(root, final, health, tmp_path).returncode == 0, 60, "healthy")
            [tini] = _children_of(running.pid)
            os.kill(tini, signal.SIGTERM)
            assert running.wait(as_loaded(10)) == 0
        finally:
            running.kill()
    assert _inside(root, final, health, tmp_path).returncode == 1


def _pinned(text: str) -> Iterator[tuple[str, str]]:
    """Names, in the one form in which they can be compared, and versions."""
    for line in text.splitlines():
        name, equals, version = line.strip().partition("==")
        if equals:
            yield re.sub(r"[-_.]+", "-", name).lower(), version


def _mounts(work: Path) -> dict[str, Path]:
    for name in ("data", "models"):
        (work / name).mkdir(exist_ok=True)
    os.chown(work / "data", 10001, 10001)
    return {"/data": work / "data", "/models": work / "models"}


def _start(root: Path, stage: Stage, options: dict[str, str], work: Path) -> list[str]:
    words = [*stage.entrypoint, *stage.command]
    return command(root, words, {**stage.environment, **options}, stage.directory, stage.user, _mounts(work))


def _inside(root: Path, stage: Stage, words: list[str], work: Path) -> "subprocess.CompletedProcess[bytes]":
    line = command(root, words, stage.environment, stage.directory, stage.user, _mounts(work))
    return subprocess.run(line, capture_output=True, check=False, timeout=as_loaded(60))


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
