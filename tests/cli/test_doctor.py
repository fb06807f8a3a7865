"""gateway doctor: exit codes, JSON, and the page that explains its checks."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.runtime.host_examination import CHECKS
from tests import models

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def test_it_ends_with_0_unless_a_check_fails_and_strict_takes_nothing_for_granted(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "affine", "1", models.affine())
    common = ["--model-repository", str(tmp_path / "models"), "--data-dir", str(tmp_path / "data")]
    common += ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0", "-o", "json"]
    well = CliRunner().invoke(app, ["doctor", *common])
    assert well.exit_code == 0, well.output
    answer = json.loads(well.stdout)
    assert [check["check"] for check in answer["checks"]] == list(CHECKS)
    assert answer["verdict"] == "unknown"  # no clock to compare with
    assert CliRunner().invoke(app, ["doctor", *common, "--strict"]).exit_code == 1
    assert not (tmp_path / "data").exists()
    ill = CliRunner().invoke(app, ["doctor", *common, "--model-repository", str(tmp_path / "none")])
    assert ill.exit_code == 1
    assert "failed: repository" in ill.stderr


def test_the_page_has_the_table_of_checks() -> None:
    before_the_start = PAGE.split("\n## ")[1]
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", before_the_start, re.MULTILINE))
    assert rows == {name: about for name, (about, _) in CHECKS.items()}
