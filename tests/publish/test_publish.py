"""gateway validate and gateway publish, with real models in processes of their own."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.cli.exits import Failure
from gateway.cli.written_file import write_file
from gateway.errors import FailedPrecondition
from gateway.publish.checklist import Checklist
from gateway.publish.publication_record import publish as put
from gateway.publish.version_trial import laid_out
from gateway.serving.provenance import RECORDS
from tests import models
from tests.serving.ensembles import Step, chain, config, tensor, write_ensemble
from tests.small_disk import small_disk

GOLDEN = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2, 4, 6, 8]}],
}
KEY = tensor("user", "TYPE_INT64", [1])
TASTE = tensor("taste", dims=[2])
VIEW = (
    f'backend: "features" max_batch_size: 64 input {KEY} output {TASTE} '
    'parameters { key: "key" value { string_value: "user:{user}" } }'
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("publish")
    models.write_version(place / "models", "m", "1", models.affine())
    (place / "new.onnx").write_bytes(models.affine(2.0))
    (place / "other.onnx").write_bytes(models.affine(3.0))
    (place / "wide.onnx").write_bytes(models.affine(features=5))
    (place / "golden.jsonl").write_text(json.dumps(GOLDEN) + "\n\n")
    return place


def run(place: Path, command: str, path: str, *words: str) -> Result:
    arguments = [command, str(place / path), "m", "--model-repository", str(place / "models"), *words]
    return CliRunner().invoke(app, arguments)


def checks(result: Result) -> dict[str, str]:
    value: dict[str, Any] = json.loads(result.stdout.partition("\npublished:")[0])
    return {check["name"]: check["state"] for check in value["checks"]}


def test_a_version_that_passes_is_published_whole_and_with_a_record(place: Path) -> None:
    names = ("\N{SUPERSCRIPT TWO}", "9" * 60)  # digits, but no version's number
    others = [place / "models/m" / name for name in names]
    for other in others:
        other.mkdir()
    words = ["--golden", str(place / "golden.jsonl"), "--lineage", "revision=4f2a", "--publisher", "ci"]
    result = run(place, "publish", "new.onnx", *words, "--html", str(place / "list.html"), "-o", "json")
    assert result.exit_code == 0, result.output
    assert checks(result) | {"latency": "", "content": ""} == {
        "files": "pass", "content": "", "load": "pass", "contract": "pass", "golden": "pass", "latency": "",
        "memory": "pass", "rows": "pass",
    }  # fmt: skip
    assert (place / "models/m/2/model.onnx").read_bytes() == models.affine(2.0)
    record = json.loads((place / "models/m" / RECORDS / "2.json").read_text())
    assert (record["publisher"], record["lineage"]) == ("ci", {"revision": "4f2a"})
    assert record["facts"]["run_us_p50"] > 0
    for other in others:
        other.rmdir()
    assert {path.name for path in (place / "models/m").iterdir()} == {"1", "2", RECORDS}
    assert "May be published" in (place / "list.html").read_text()
    again = run(place, "publish", "new.onnx", "--version", "2")
    assert again.exit_code == 1
    assert "a published version never changes" in again.output


@pytest.mark.parametrize(
    ("path", "words", "reason"),
    [
        ("other.onnx", ["--golden", "golden.jsonl"], "golden"),
        ("wide.onnx", ["--memory-mb", "1", "--latency-ms", "0.0001"], "contract, latency"),
        ("golden.jsonl", [], "load"),
    ],
)
def test_what_fails_is_not_published(path: str, words: list[str], reason: str, place: Path) -> None:
    before = sorted(entry.name for entry in (place / "models/m").iterdir())
    words = [str(place / word) if word.endswith(".jsonl") else word for word in words]
    result = run(place, "publish", path, *words)
    assert result.exit_code == 1
    assert f"must not be published as m: {reason}" in " ".join(result.output.split())
    assert sorted(entry.name for entry in (place / "models/m").iterdir()) == before


def test_a_file_is_no_version_of_an_ensemble(tmp_path: Path) -> None:
    (tmp_path / "new.onnx").write_bytes(models.affine())
    write_ensemble(tmp_path / "models", "m", config(Step("m")))
    result = run(tmp_path, "publish", "new.onnx")
    assert result.exit_code == 1
    assert "the ensemble is a step within itself" in " ".join(result.output.split())
    write_ensemble(tmp_path / "models", "m", VIEW)
    result = run(tmp_path, "publish", "new.onnx")
    assert "model 'm' with a config.pbtxt of 'features', which has no model file" in " ".join(result.output.split())
    assert not (tmp_path / "models/m/2").exists()


def whole(place: Path, command: str, *words: str, steps: list[Step], more: str = "", name: str = "whole") -> Result:
    """The command on an ensemble of these steps, which has its configuration in a place of its own."""
    (place / "build" / "whole").mkdir(parents=True, exist_ok=True)
    (place / "build" / "whole" / "config.pbtxt").write_text(config(*steps, batch=8, more=more))
    arguments = [command, str(place / "build" / "whole"), name, "--model-repository", str(place / "models"), *words]
    return CliRunner().invoke(app, arguments)


def test_an_ensemble_is_tried_as_a_whole_and_published(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "a", "7", models.affine(2.0))
    (tmp_path / "golden.jsonl").write_text(json.dumps(GOLDEN).replace("[2, 4, 6, 8]", "[4, 8, 12, 16]"))
    golden = ["--golden", str(tmp_path / "golden.jsonl"), "-o", "json"]
    result = whole(tmp_path, "publish", *golden, "--publisher", "ci", steps=chain("a", "a"))
    assert result.exit_code == 0, result.output
    assert checks(result) | {"latency": ""} == {
        "files": "pass", "steps": "pass", "load": "pass", "contract": "skipped", "golden": "pass", "latency": "",
        "memory": "pass", "rows": "pass",
    }  # fmt: skip
    assert "step 2 (model 'a') is version '7'" in result.output
    assert "; it ran as a whole" in result.output
    placed = tmp_path / "models" / "whole"
    text = tmp_path.joinpath("build/whole/config.pbtxt").read_bytes()
    assert placed.joinpath("config.pbtxt").read_bytes() == text
    record = json.loads((placed / RECORDS / "1.json").read_text())
    assert (record["publisher"], record["facts"]["run_us_p50"] > 0) == ("ci", True)
    list_ = Checklist("whole", "d", 1, "")
    given = {"version": "", "publisher": "ci", "now_s": 1.0, "lineage": {}}
    with pytest.raises(FailedPrecondition, match=r"has another 'config\.pbtxt' already, which all"):
        put({"config.pbtxt": text + b"#"}, tmp_path / "models", list_, **given)  # type: ignore[arg-type]
    assert {path.name for path in placed.iterdir()} == {"1", "config.pbtxt", RECORDS}
    assert put({"config.pbtxt": text}, tmp_path / "models", list_, **given) == "2"  # type: ignore[arg-type]


def test_an_ensemble_that_cannot_serve_is_not_published(tmp_path: Path) -> None:
    models.write_version(tmp_path / "models", "a", "1", models.affine())
    write_ensemble(tmp_path / "models", "wide", VIEW)
    step = Step("wide", {"user": "x"}, {"taste": "y"})
    for steps, name, reason in (
        ([Step("absent")], "whole", "step 1 (model 'absent'): Request for unknown model"),
        ([step], "whole", "step 1 (model 'wide'): input 'user' is INT64, input 'x' of the ensemble is FP32"),
        ([step], "a", "the repository has model 'a' of 'onnxruntime_onnx': take another name"),
    ):
        result = whole(tmp_path, "publish", "-o", "json", steps=steps, name=name)
        assert result.exit_code == 1
        assert reason in json.loads(result.stdout)["checks"][0]["text"]
    assert not (tmp_path / "models" / "whole").exists()
    assert not (tmp_path / "models" / "a" / "config.pbtxt").exists()


def test_what_looks_up_features_is_checked_as_far_as_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "build" / "m").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    (tmp_path / "build" / "m" / "config.pbtxt").write_text(VIEW)
    result = run(tmp_path, "publish", "build/m", "-o", "json")
    assert checks(result)["golden"] == checks(result)["latency"] == "skipped", result.output
    (tmp_path / "build" / "m" / "config.pbtxt").write_text(VIEW.replace("[2]", "[3]").replace('"key"', '"keys"'))
    assert "keys" in run(tmp_path, "validate", "build/m", "-o", "json").output
    (tmp_path / "build" / "m" / "config.pbtxt").write_text(VIEW.replace("[2]", "[3]"))
    assert checks(run(tmp_path, "publish", "build/m", "-o", "json"))["contract"] == "fail"
    text = config(Step("m", {"user": "u"}, {"taste": "y"}), inputs=[KEY.replace("user", "u")], outputs=[TASTE])
    write_ensemble(tmp_path / "models", "whole", text.replace('"taste" data', '"y" data'))
    (tmp_path / "golden.jsonl").write_text(json.dumps(GOLDEN))
    # Without a repository the steps lie beside the ensemble.
    words = ["whole", "--data-dir", str(tmp_path / "none"), "--golden", str(tmp_path / "golden.jsonl"), "-o", "json"]
    result = CliRunner().invoke(app, ["validate", str(tmp_path / "models" / "whole"), *words])
    assert (result.exit_code, checks(result)["golden"]) == (1, "fail")  # it was asked for, and nobody knows
    assert (checks(result)["steps"], checks(result)["load"], checks(result)["latency"]) == ("pass", "pass", "skipped")
    assert "not run: step 1 (model 'm') looks its answers up in a feature store" in result.output


def test_a_file_that_has_the_name_of_a_version_is_no_configuration(tmp_path: Path) -> None:
    models.write_version(tmp_path, "m", "1", models.affine())
    (tmp_path / "beside").mkdir()
    for name in ("1", "config.pbtxt"):
        (tmp_path / "beside" / name).write_text("")
    with laid_out(tmp_path / "m/1", "m", tmp_path / "beside") as loader:
        assert loader.versions("m").names == ("1",)
        assert loader.read("m", "config.pbtxt", 10) == b""


def test_validate_publishes_nothing_and_takes_a_directory(place: Path) -> None:
    before = sorted(entry.name for entry in (place / "models/m").iterdir())
    result = run(place, "validate", "models/m/1", "--against", "1", "-o", "json")
    assert result.exit_code == 0, result.output
    assert checks(result)["content"] == "warn"  # that of version 1
    assert sorted(entry.name for entry in (place / "models/m").iterdir()) == before


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "inputs"),
        ('{"inputs": [{"name": "x", "datatype": "FP33", "shape": [1], "data": [1]}], "outputs": []}', "FP33"),
        ('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}], "outputs": []}', "1 elements"),
        ('{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [1]}], "outputs": []}', "are texts"),
        (
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}], "outputs": []}',
            "outputs is empty",
        ),
        (
            '{"inputs": [], "outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [1.7]}]}',
            "none of INT64",
        ),
        ('{"inputs": [], "outputs": [{"name": "y", "datatype": "BOOL", "shape": [1], "data": ["false"]}]}', "of BOOL"),
        ('{"inputs": [], "outputs": [], "tolerence": 1}', "tolerence"),
    ],
)
def test_golden_requests_that_cannot_be_read_are_told_by_line(line: str, reason: str, place: Path) -> None:
    (place / "bad.jsonl").write_text(f"\n{line}\n")
    result = run(place, "validate", "new.onnx", "--golden", str(place / "bad.jsonl"))
    assert result.exit_code == 2
    assert "line 2" in result.output
    assert reason in result.output


def test_without_a_repository_it_is_told_that_nobody_can_tell_what_breaks(place: Path) -> None:
    words = ["validate", str(place / "new.onnx"), "m", "--data-dir", str(place / "nothing")]
    result = CliRunner().invoke(app, [*words, "-o", "json"])
    assert (result.exit_code, checks(result)["active"], checks(result)["contract"]) == (0, "warn", "skipped")
    compared = CliRunner().invoke(app, [*words, "--against", "1"])
    assert compared.exit_code == 2
    assert "--model-repository" in compared.output


@pytest.mark.parametrize("command", ["publish", "retire"])
def test_a_command_that_knows_no_repository_to_write_into_says_why(command: str, place: Path) -> None:
    words = [str(place / "new.onnx"), "m"] if command == "publish" else ["m", "1"]
    result = CliRunner().invoke(app, [command, *words, "--data-dir", str(place / "nothing")])
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert "--model-repository is empty, and no gateway has run on" in told


def test_a_repository_that_is_no_directory_is_told(place: Path) -> None:
    arguments = ["publish", str(place / "new.onnx"), "m", "--model-repository", "oci://host/m"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "publish writes into one directory" in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["publish", "retire", "delete"])
def test_a_directory_of_versions_is_no_repository_to_write_into(command: str, place: Path) -> None:
    words = [str(place / "new.onnx"), "m"] if command == "publish" else ["m", "1"]
    result = CliRunner().invoke(app, [command, *words, "--model-repository", str(place / "models" / "m")])
    assert result.exit_code == 2
    assert f"needs the repository of which it is a model, '{place / 'models'}'" in " ".join(result.output.split())


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_published(place: Path) -> None:
    for html in (place / "absent" / "list.html", place):
        result = run(place, "publish", "new.onnx", "--html", str(html))
        assert (result.exit_code, result.exception is None or isinstance(result.exception, SystemExit)) == (2, True)
        assert "--html is" in result.output
    with pytest.raises(Failure, match="--html: '/dev/full' cannot be written: No space left"):
        write_file("--html", Path("/dev/full"), "x" * 100_000)


def test_a_repository_that_is_not_there_is_no_first_version(place: Path) -> None:
    """Or a typing error would skip the check of the contract, and CI would go on."""
    result = CliRunner().invoke(
        app, ["validate", str(place / "wide.onnx"), "m", "--model-repository", str(place / "modles")]
    )
    assert (result.exit_code, "repository" in result.output) == (1, True), result.output


def test_links_lead_where_an_option_says(place: Path) -> None:
    """As those of a snapshot in the cache of Hugging Face do."""
    snapshot = place / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.onnx").symlink_to("../new.onnx")
    refused = run(place, "validate", "snapshot")
    assert refused.exit_code == 1
    assert "--allow-links-to" in refused.output
    result = run(place, "validate", "snapshot", "--allow-links-to", str(place), "-o", "json")
    assert checks(result)["load"] == "pass", result.output


@pytest.fixture
def scarce(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 pages."""
    with small_disk(tmp_path / "scarce", "128k"):
        yield tmp_path / "scarce"


def fill(disk: Path, pages: int) -> None:
    """Leaves so many pages of it free."""
    (disk / "filler").unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail
    with (disk / "filler").open("wb") as file:
        file.write(bytes(4096 * (free - pages)))


@pytest.mark.parametrize("of_ensemble", [False, True])
def test_a_disk_that_is_full_leaves_nothing_of_a_publication(of_ensemble: bool, scarce: Path, place: Path) -> None:
    repository = scarce / "models"
    repository.mkdir()
    list_ = Checklist("m", "d", 1, "", facts={f"fact-{number}": 1.0 for number in range(500)})
    given: dict[str, Any] = {"version": "", "publisher": "ci", "now_s": 1.0, "lineage": {}}
    refused: list[str] = []
    with laid_out(place / "new.onnx", "m", None) as loader:
        local = loader.fetch("m", loader.versions("m").names[0])
        content = {"config.pbtxt": b"x" * 9000, "labels.txt": b"y" * 9000} if of_ensemble else local
        for pages in range(20):
            fill(scarce, pages)
            try:
                name = put(content, repository, list_, **given)
                break
            except FailedPrecondition as error:
                refused.append(str(error))
            assert {entry.name for entry in repository.rglob("*")} <= {"m", RECORDS}
    assert set(refused) == {"the repository cannot be written: No space left on device"}
    assert name == "1"  # no name was lost
    assert (repository / "m" / RECORDS / "1.json").stat().st_size


def test_what_a_killed_publication_left_goes_with_a_later_one(place: Path, tmp_path: Path) -> None:
    left, young = tmp_path / "m" / ".publishing-left", tmp_path / "m" / ".publishing-young"
    for directory in (left, young):
        directory.mkdir(parents=True)
        (directory / "model.onnx").write_bytes(b"half of it")
    os.utime(left, (0, 0))
    checklist = Checklist("m", "d", 1, "")
    with laid_out(place / "new.onnx", "m", None) as loader:
        content = loader.fetch("m", "1")
        now_s = young.stat().st_mtime
        assert put(content, tmp_path, checklist, version="", publisher="ci", now_s=now_s, lineage={}) == "1"
    assert (left.exists(), young.exists()) == (False, True)


class PublishedMeanwhile(dict[str, bytes]):
    """What lies beside an ensemble's versions; while it is written somebody else publishes the same."""

    def __init__(self, content: dict[str, bytes], other: Callable[[], object]) -> None:
        super().__init__(content)
        self._other = other

    def items(self) -> Any:
        yield from super().items()
        self._other()


def test_a_name_that_is_taken_meanwhile_takes_no_configuration_from_who_has_it(tmp_path: Path) -> None:
    content, checklist = {"config.pbtxt": b"platform: 'ensemble'"}, Checklist("m", "", 1, "")
    given: dict[str, Any] = {"version": "1", "publisher": "ci", "now_s": 1.0, "lineage": {}}
    twice = PublishedMeanwhile(content, lambda: put(content, tmp_path, checklist, **given))
    with pytest.raises(FailedPrecondition, match="has a version '1', or had one"):
        put(twice, tmp_path, checklist, **given)
    assert (tmp_path / "m/1").is_dir()
    assert (tmp_path / "m/config.pbtxt").read_bytes() == content["config.pbtxt"]
