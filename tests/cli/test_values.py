"""What commands print for programs has every field that the server sends."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.applied_change import applied_value, change_value
from gateway.cli.draft import draft_value
from gateway.cli.feedback import FIELDS, item_of
from gateway.cli.plan import plan_value
from gateway.drift.report.analysis_extra import ANALYSIS
from gateway.page.message_values import document_value, entry_value, row_value, version_value, worker_value
from gateway.pb import control_pb2 as pb

# Fields that are told under another name, as their unit or their form is another one.
RENAMED = {
    "applied_us": "applied_ms",
    "commit_us": "commit_ms",
    "committed_at_us": "committed_at",
    "document_json": "document",
    "edited_at_us": "edited_at",
    "in_force_json": "in_force",
    "inputs_json": "inputs",
    "moved_buckets": "moved_percent",
    "outputs_json": "outputs",
    "ts_us": "ts",
    "version_buckets": "version_percent",
}
VALUES: dict[type[Any], Callable[[Any], Any]] = {
    pb.ModelVersionState: version_value,
    pb.Worker: worker_value,
    pb.LogRow: row_value,
    pb.DraftState: lambda draft: draft_value(pb.DraftState(document_json="{}")),
    pb.HistoryEntry: lambda entry: entry_value(entry) | dict(document_value(entry)),
    pb.ChangeResponse: change_value,
    pb.PlanResponse: lambda plan: {**plan_value(plan), "versions": plan_value(plan)["not_ready"]},
    pb.ApplyResponse: lambda answer: {**applied_value(answer), "change": None, "route": None},  # its shares,
}


@pytest.mark.parametrize("message", VALUES, ids=lambda message: message.__name__)
def test_every_field_is_told(message: Any) -> None:
    value: Mapping[str, object] = VALUES[message](message())
    wanted = {RENAMED.get(field.name, field.name) for field in message.DESCRIPTOR.fields}
    assert wanted - set(value) == set()


def test_every_field_of_a_label_can_be_given() -> None:
    texts = {"label": "cat", "label_num": "1", "label_text": "cat", "reward": "1", "row_index": "1", "label_time": "1"}
    given = [item_of({name: texts.get(name, "x")}).ListFields() for name in FIELDS]
    assert all(given)
    assert {field.name for fields in given for field, _ in fields} == set(pb.FeedbackItem.DESCRIPTOR.fields_by_name)


def test_the_extra_is_what_the_package_declares() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    declared = {one.partition(">")[0] for one in project["optional-dependencies"]["analysis"]}
    assert set(ANALYSIS) == declared
