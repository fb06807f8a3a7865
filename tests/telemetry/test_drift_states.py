"""States of drift as events."""

import json
import os
from pathlib import Path

from gateway.telemetry.drift_states import REPORT_FILE, observe_drift
from gateway.telemetry.published import PublishedReport


def report(state: str, agreement: str = "ok") -> dict[str, object]:
    features = [
        {"feature": f"x_{n}", "state": state if n < 12 else "ok", "statistic": "psi", "value": 0.5, "p": 0.0}
        for n in range(20)
    ]
    arm = {"model": "m/1", "version": "2", "arm": "b", "state": state, "rows": 400, "features": features}
    mirror = {"model": "m/1", "version": "3", "arm": "b", "state": agreement, "pairs": 500, "agreement": 0.97}
    return {"window": "1h", "arms": [arm], "mirrors": [mirror]}


def test_only_what_changed_is_told() -> None:
    states, first = observe_drift({}, report("insufficient"))
    assert [one.type for one in first] == ["shadow.state"]
    states, same = observe_drift(states, report("insufficient"))
    assert same == []
    states, happenings = observe_drift(states, report("crit"))
    (one,) = happenings
    assert (one.type, one.subject) == ("drift.state", "m/1")
    assert (one.data["previous"], one.data["state"], one.data["window"]) == ("insufficient", "crit", "1h")
    features = one.data["features"]
    assert isinstance(features, list)
    assert [item["feature"] for item in features] == [f"x_{n}" for n in range(10)]
    states, gone = observe_drift(states, {})
    assert gone == []
    _, back = observe_drift(states, report("ok", "warn"))
    assert sorted(one.type for one in back) == ["drift.state", "shadow.state"]


def test_a_report_is_read_again_when_it_is_another_one(tmp_path: Path) -> None:
    reader = PublishedReport(tmp_path / REPORT_FILE)
    assert reader.read() == {}
    for window in ("1h", "1d"):
        (tmp_path / "new").write_text(json.dumps({"window": window}))
        os.replace(tmp_path / "new", tmp_path / REPORT_FILE)
        assert reader.read() == {"window": window}
    (tmp_path / REPORT_FILE).write_text("{")
    assert reader.read() == {"window": "1d"}
