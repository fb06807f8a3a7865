"""The labelled rows of the log: what the model answered, held against what came true."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.lake_sql import quoted, text
from gateway.drift.statistics.answers import Labelled, Outputs, numbers, read_answers
from gateway.errors import InvalidArgument

MOST_LABELLED: Final = 2_000_000
_MOST_CLASSES: Final = 200


def answer_sql(outputs: Outputs) -> dict[str, str]:
    """SQL of the numbers that the answer consists of, by name."""
    return {name: quoted(column) for name, column in outputs.columns.items()}


def read_labelled(
    lake: Lake, selection: Selection, outputs: Outputs, *, classes: Sequence[str] = (), most: int = MOST_LABELLED
) -> Labelled | None:
    """The labelled rows of the selection, by time, or about `most` of them where there are more; None where there is
    none with an answer.

    `classes` name the classes 0, 1, 2, ... where labels are texts and answers numbers.
    Raises: InvalidArgument (labels and answers that cannot be compared).
    """
    names = _class_names(lake, selection, outputs, classes)
    coded = f"list_position([{', '.join(text(name) for name in names)}]::VARCHAR[], {{}}) - 1"
    expressions = {name: f"p.{expression}" for name, expression in answer_sql(outputs).items()} | {
        "label": f"coalesce(l.label_num, {coded.format('l.label_text')})" if names else "l.label_num",
        "ts": "epoch_us(p.ts)",
        "delay": "(epoch_us(l.first_received_ts) - epoch_us(p.ts)) / 1e6",
        "weight": "1 / p.sample_p::DOUBLE",
    }
    if outputs.said:
        expressions["said"] = coded.format(f"p.{quoted(outputs.said)}")
    total, share = None, 1.0
    if lake.label_count(selection.model) > most:  # only then is it worth the second join
        total = int(lake.labelled(selection, {"rows": "count(*)"})["rows"].sum())
        share = min(most / max(total, 1), 1.0)
    joined = lake.labelled(selection, expressions, share=share)
    if not len(joined["label"]):
        return None
    actual = numbers(joined["label"])
    known = np.isfinite(actual)
    if not known.any():
        raise InvalidArgument(
            "labels are texts and answers are class numbers: name the classes in order with --classes a,b,c"
        )
    answers, known = read_answers(joined, known, np.unique(actual[known]), classes=names)
    order = np.flatnonzero(known)
    if not len(order):  # redaction keeps the answers out of the log
        return None
    moments = numbers(joined["ts"])[order].astype(np.int64)
    order = order[np.argsort(moments, kind="stable")]
    return Labelled(
        answers.rows(order), actual[order], numbers(joined["weight"])[order],
        numbers(joined["ts"])[order].astype(np.int64), numbers(joined["delay"])[order], names,
        len(joined["label"]) if total is None else total,
    )  # fmt: skip


def _class_names(lake: Lake, selection: Selection, outputs: Outputs, given: Sequence[str]) -> tuple[str, ...]:
    """The classes by number where texts are in play, else none."""
    labels = lake.label_texts(selection.model, _MOST_CLASSES + 1)
    said = [value for value in lake.tally(selection, outputs.said)[0] if value is not None] if outputs.said else []
    if given:
        return tuple(given)
    if not labels or (not outputs.said and any(not name.isdecimal() for name in labels)):
        return ()
    if not outputs.said:
        return tuple(str(number) for number in range(max(int(name) for name in labels) + 1))
    names = sorted({*labels, *said})
    if len(names) > _MOST_CLASSES:
        raise InvalidArgument(f"labels and answers have over {_MOST_CLASSES} different texts, which are no classes")
    return tuple(names)
