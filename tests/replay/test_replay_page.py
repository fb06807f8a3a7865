"""docs/replay.md: each command of the page runs, on a log and models like those that it speaks of."""

import re
import shlex
from pathlib import Path
from time import time

import msgspec
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.replay.replay_report import MISSING
from gateway.replay.version_source import VersionSource
from gateway.routing.document.offline_check import OFFLINE_FIELDS
from gateway.routing.document.strategy import Canary
from tests.drift.lakes import write_rows
from tests.models import classifier
from tests.replay.replayed import softmax, write_model
from tests.routing.documents import document

PAGE = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
COMMANDS = sorted(
    {line.strip() for line in re.findall(r"(?:^|`)(gateway (?:replay [^`\n]*--|rerun \w)[^`\n]*)", PAGE, re.M)}
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a gateway leaves it, with requests for `digits` of the last minutes."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "data" / "run").mkdir(parents=True)
    write_model(directory, "digits", {"1": classifier(), "2": classifier()})
    x = np.random.default_rng(1).normal(size=(40, 4)).astype("<f4")
    moments = int((time() - 600) * 1e6) + np.arange(40) * 1000
    digest = VersionSource(directory / "data", str(directory / "models")).find("digits", "1").digest
    names = ["7f3a", *(f"r{number}" for number in range(39))]
    given = {"model": "digits", "names": names, "digest": digest}
    write_rows(directory / "data", moments, {"x": x}, {"scores": softmax(x, 3)}, **given)  # type: ignore[arg-type]
    state = {"models": {"repository": str(directory / "models"), "allow_links_to": ""}}
    (directory / "data" / "run" / "state.json").write_bytes(msgspec.json.encode(state))
    return directory


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_runs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(place / "data"))
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    if " rerun " in line:  # answered by numpy, whose last bits are others
        assert result.exit_code in (0, 1)
        assert "request 7f3a of " in result.stdout
        return
    assert result.exit_code == 0, result.output
    assert "40 rows of 40 requests" in result.stdout or '"rows": 40' in result.stdout or "--where" in line


def test_the_page_has_every_kind_of_what_is_missing() -> None:
    for kind in MISSING:
        assert f"| `{kind}` |" in PAGE


def test_the_document_of_the_page_is_one() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    strategy = yaml.safe_load(text)["strategy"]
    fields = strategy["canary"]["steps"][0]["offline"]
    made = document(arms={"stable": {"version": "1"}, "canary": {"version": "2"}}, strategy=strategy).strategy
    assert isinstance(made, Canary)
    assert made.steps[0].offline is not None
    assert made.steps[0].offline.to_value() == fields
    assert set(fields) == set(OFFLINE_FIELDS) == set(re.findall(r"^\| `(\w+)` \| `", PAGE, re.M))
