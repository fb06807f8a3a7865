"""gateway drift status: what the monitors of this host say now, of drift and of performance."""

from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.drift_performance import columns_of, notes_of, read_performance, rows_of
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import Format, show
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DataDir, Output
from gateway.page.message_values import Value, moment

_FILE = Path("run") / "published" / "drift.json"
_SILENT_S = 60.0  # the monitor looks every five seconds
_ARM_COLUMNS = (
    "MODEL",
    "VERSION",
    "ARM",
    "STATE",
    "ROWS",
    "WINDOW ENDED",
    "WORST",
    "STATISTIC",
    "VALUE",
    "LIMIT",
    "WINDOWS",
)
_FEATURE_COLUMNS = (
    "VERSION",
    "ARM",
    "FEATURE",
    "STATE",
    "STATISTIC",
    "DIRECTION",
    "VALUE",
    "LIMIT",
    "LIMIT FROM",
    "ROWS",
    "P",
    "WINDOWS",
)


def status(
    model: Annotated[str, typer.Argument(help="Only this model, each of its features.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Show the newest window of each arm as the monitor of this host judges it, the worst feature first.

    VALUE is held against LIMIT, which comes from the table in docs/drift.md, from that and the error of the sample,
    from what the reference's own windows do, or is the bound of that. WINDOWS is how many in a row are above it; three
    make an alarm. Too few rows are `insufficient`, which is not OK; ROWS then says how many are needed.

    Below that how good the answers were, as their LABELS have it, beside what is estimated from their scores alone. The
    estimate does not see it when the same inputs come to mean other labels.
    """
    from gateway.drift.profile_files import ProfileFiles

    report = _report(data_dir / _FILE)
    chosen = {key: _of_model(report, key, model) for key in ("arms", "comparisons", "mirrors", "splits")}
    arms = read_performance(data_dir, model)
    if model and not arms and not any(chosen.values()) and not ProfileFiles(data_dir).versions(model):
        raise Failure(
            Exit.REFUSED,
            f"nothing is known of model {model!r}: it has no reference profile (`gateway profile build` makes one)",
        )
    performance: Value = [dict(arm) for arm in arms]
    value: dict[str, Value] = {
        "at_s": report["at_s"], "window": report["window"], **chosen, "performance": performance,
    }  # fmt: skip
    age_s = time() - float(report["at_s"])
    note = f"windows of {report['window']}; the monitor looked {age_s:.0f} s ago"
    if age_s > _SILENT_S:
        note += ": IT IS SILENT, and silence is not OK"
    notes = [*_others(chosen), note] if chosen["arms"] else [*_others(chosen), f"no window was judged yet; {note}"]
    if model:
        rows = [_feature_row(arm, feature) for arm in chosen["arms"] for feature in arm["features"]]
        show(value, output, columns=_FEATURE_COLUMNS if rows else (), rows=rows, note=notes)
    else:
        rows = [_arm_row(arm) for arm in chosen["arms"]]
        show(value, output, columns=_ARM_COLUMNS if rows else (), rows=rows, note=notes)
    if output is Format.TABLE and arms:
        show(None, output, columns=columns_of(model), rows=rows_of(arms, model), note=notes_of(arms))


def _report(path: Path) -> Mapping[str, Any]:
    try:
        published = msgspec.json.decode(path.read_text(encoding="utf-8"))
        return {"at_s": float(published["at_s"]), **published}
    except FileNotFoundError:
        raise Failure(
            Exit.REFUSED, f"{path} is not there: no gateway with this data directory has looked for drift yet"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(Exit.REFUSED, f"{path} cannot be read: {error}") from None


def _of_model(report: Mapping[str, Any], key: str, model: str) -> list[Any]:
    return [one for one in report.get(key, ()) if not model or one["model"] == model]


def _arm_row(arm: Mapping[str, Any]) -> list[Value]:
    worst = arm["features"][0] if arm["features"] else {}
    judged = [worst.get("feature", ""), worst.get("statistic", ""), *_numbers(worst), worst.get("streak", "")]
    head = [arm["model"], arm["version"], arm["arm"], arm["state"], arm["rows"], moment(int(arm["end_s"]) * 1_000_000)]
    return [*head, *judged]


def _feature_row(arm: Mapping[str, Any], feature: Mapping[str, Any]) -> list[Value]:
    named = [
        arm["version"],
        arm["arm"],
        feature["feature"],
        feature["state"],
        feature["statistic"],
        feature["direction"],
    ]
    rows = f"{feature['n']:.0f}"
    if feature["state"] == "insufficient" and feature["n"] < feature.get("least_rows", 0):
        rows += f" of {feature['least_rows']} needed"
    origin = feature.get("origin", "") if feature.get("statistic") else ""
    return [*named, *_numbers(feature), origin, rows, f"{feature['p']:.2g}", feature["streak"]]


def _numbers(feature: Mapping[str, Any]) -> list[Value]:
    return [f"{feature[key]:.3f}" if feature.get("statistic") else "" for key in ("value", "threshold")]


def _others(chosen: Mapping[str, list[Any]]) -> list[str]:
    """Returns arms, mirrors and splits in words, if there are any to report."""
    notes = []
    for one in chosen["comparisons"]:
        drifted = [output["feature"] for output in one["outputs"] if output["state"] in ("warn", "crit")]
        if drifted:
            other = one["against"]["arm"] or one["against"]["version"]
            arm = one["arm"] or one["version"]
            notes.append(f"{one['model']}: arm {arm} answers otherwise than {other}: {', '.join(drifted)}")
    for one in chosen["mirrors"]:
        ratio = "no pairs" if one["agreement"] is None else f"{one['agreement']:.2%} of {one['pairs']} pairs agree"
        notes.append(f"{one['model']}: mirror {one['arm']} is {one['state']}: {ratio}")
    for one in chosen["splits"]:
        if one["state"] in ("warn", "crit"):
            lost = f"{one['mismatch']:.1%} of the requests are missing somewhere"
            notes.append(f"{one['model']}: the split is {one['state']}: {lost}")
    return notes
