"""gateway feedback send, against a running worker."""

import json
from pathlib import Path

import pytest

from gateway.cli.feedback import moment_us
from gateway.records.worker.label import Label
from gateway.records.worker.reading import read
from gateway.records.worker.segment import entries
from tests.api.operated import TOKENS
from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")


def labels(shell: Shell) -> list[Label]:
    """Every label that the worker has written, in order."""
    segments = [
        entry for entry in entries(shell.worker.log_dir) if entry.segment and "feedback" in entry.segment.worker
    ]
    contents = [read(entry.path.read_bytes(), entry.segment) for entry in segments if entry.segment]
    return [label for content in contents for _, part in content.labels for label in part]


async def test_one_label_by_request_id_or_token(shell: Shell) -> None:
    said = await shell.done("feedback", "send", "affine", "r1", "--label", "1.5", "--row", "2", "--time", "1970-01-01")
    assert said == "1 label accepted\n"
    (label,) = labels(shell)[-1:]
    assert (label.request_id, label.number, label.row_index, label.source) == ("r1", 1.5, 2, "cli")
    token = TOKENS.stamp("affine", "1", "stable", 1).mint("r2").decode()
    await shell.done("feedback", "send", "--token", token, "--text", "7", "--reward", "0.25", "--source", "me")
    (label,) = labels(shell)[-1:]
    assert (label.text, label.number, label.reward, label.source) == ("7", None, 0.25, "me")


async def test_a_csv_file_of_several_batches(shell: Shell, tmp_path: Path) -> None:
    before = len(labels(shell))
    path = tmp_path / "labels.csv"
    rows = [f"affine,r{number},{number % 2},cat,2026-01-02T03:04:05Z,0.5" for number in range(2500)]
    path.write_text("\ufeffmodel,request_id,row_index,label,label_time,reward\n" + "\n".join(rows) + "\n")
    assert await shell.value("feedback", "send", "-f", str(path), "--source", "review") == {"accepted": 2500}
    logged = labels(shell)[before:]
    assert [label.request_id for label in logged] == [f"r{number}" for number in range(2500)]
    last = logged[-1]
    assert (last.text, last.reward, last.row_index, last.source) == ("cat", 0.5, 1, "review")
    assert last.label_us == moment_us("2026-01-02T03:04:05Z") == 1_767_323_045_000_000


async def test_the_lines_of_a_file_without_a_model_are_of_the_one_that_is_named(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("model,request_id,label\n,m1,1\naffine,m2,2\n")
    assert await shell.value("feedback", "send", "affine", "-f", str(path)) == {"accepted": 2}
    assert [(label.model, label.request_id) for label in labels(shell)[-2:]] == [("affine", "m1"), ("affine", "m2")]
    token = TOKENS.stamp("affine", "1", "stable", 1).mint("m3").decode()
    line = json.dumps({"token": token, "label": 3})
    assert await shell.value("feedback", "send", "other", "-f", "-", text=line) == {"accepted": 1}
    both = await shell.run("feedback", "send", "affine", "m1", "-f", str(path))
    assert (both.exit_code, "give one of the two" in both.output) == (2, True)


async def test_json_lines_from_standard_input(shell: Shell) -> None:
    token = TOKENS.stamp("affine", "1", "stable", 1).mint("r9").decode()
    lines = [
        {"token": token, "label": 3, "label_time": 12.5},
        {"model": "affine", "request_id": "x", "label": "4", "reward": None},
        {"model": "affine", "request_id": "y", "label_text": "5", "source": "own"},
        {"model": "affine", "request_id": "z", "label": True},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    assert await shell.value("feedback", "send", "-f", "-", text=text) == {"accepted": 4}
    logged = [(label.number, label.text, label.source) for label in labels(shell)[-4:]]
    assert logged == [(3.0, None, "cli"), (4.0, None, "cli"), (None, "5", "own"), (1.0, None, "cli")]
    assert labels(shell)[-4].label_us == 12_500_000


async def test_what_the_server_refuses_is_told_with_its_line_and_how_many_were_taken_before(
    shell: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "labels.jsonl"
    good = json.dumps({"model": "affine", "request_id": "r", "label": 1})
    bad = json.dumps({"model": "affine", "request_id": "r", "label": 1, "row_index": -1})
    path.write_text("\n".join([good] * 1200 + [bad] + [good] * 5))
    before = len(labels(shell))
    result = await shell.run("feedback", "send", "-f", str(path))
    assert result.exit_code == 1
    assert "1000 labels were accepted before; INVALID_ARGUMENT: line 1201: row_index is -1, allowed" in result.stderr
    assert len(labels(shell)) == before + 1000


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            "model,request_id,colour\naffine,r,red\n",
            "line 2: there is no field 'colour': the fields are token",
        ),
        ("a.csv", "model,request_id,label\naffine,r\n", "line 2: 3 fields are wanted"),
        ("a.csv", "model,request_id,row_index,label\naffine,r,one,1\n", "line 2: row_index is 'one', allowed: a whole"),
        ("a.csv", "model,request_id,label_num\naffine,r,cat\n", "line 2: label_num is 'cat', allowed: a number"),
        ("a.csv", "model,request_id,label,label_time\nm,r,1,soon\n", "line 2: label_time is 'soon', allowed: ISO 8601"),
        ("a.csv", "model,request_id,label\n", "no labels"),
        ("a.jsonl", '{"model": "m"\n', "line 1: "),
        ("a.jsonl", "[1]\n", "line 1: '[1]' is no JSON object"),
        ("a.jsonl", '{"model": "m", "label_num": 1, "label_text": "x"}\n', "label_num and label_text are given"),
    ],
)
async def test_a_file_that_makes_no_sense_is_refused_by_line(
    shell: Shell, tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    result = await shell.run("feedback", "send", "-f", str(tmp_path / name))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


async def test_a_label_in_the_arguments_and_a_file_are_one_too_many(shell: Shell) -> None:
    result = await shell.run("feedback", "send", "affine", "-f", "x.csv")
    assert result.exit_code == 2
    result = await shell.run("feedback", "send", "affine", "r1")
    assert result.exit_code == 1
    assert "INVALID_ARGUMENT: label: neither number, text nor reward is given" in result.stderr
