"""Labels and rewards of an answer, as the control service takes them."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from gateway.client.answer import Answer
from gateway.pb import control_pb2
from gateway.tensor import Array

Truth = float | int | str | np.generic


def feedback_items(
    answer: Answer,
    *,
    label: Truth | Sequence[Truth] | Array | None,
    reward: float | Sequence[float] | None,
    row: int,
    time: datetime | None,
    source: str,
) -> list[control_pb2.FeedbackItem]:
    """Returns an item for each label or reward; a list has one for each row, from `row` on.

    Raises: ValueError (neither label nor reward; lists of different lengths; a time without a zone).
    """
    labels, rewards = _listed(label), _listed(reward)
    if not labels and not rewards:
        raise ValueError("give a label, a reward, or both")
    if labels and rewards and len(labels) != len(rewards):
        raise ValueError(f"{len(labels)} labels and {len(rewards)} rewards: give one of each for a row")
    if time is not None and time.tzinfo is None:
        raise ValueError(f"time {time} has no time zone")
    items = []
    for index in range(max(len(labels), len(rewards))):
        item = control_pb2.FeedbackItem(
            token=answer.token, model=answer.model, request_id=answer.request_id, row_index=row + index, source=source
        )
        if labels:
            _label(item, labels[index])
        if rewards:
            item.reward = float(rewards[index])
        if time is not None:
            item.label_time_us = int(time.timestamp() * 1e6)
        items.append(item)
    return items


def _listed(value: object) -> list[Truth]:
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        flat: list[Truth] = value.reshape(-1).tolist()
        return flat
    return list(value) if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]


def _label(item: control_pb2.FeedbackItem, label: Truth) -> None:
    if isinstance(label, str):
        item.text = label
    elif isinstance(label, bool | int | float | np.number | np.bool_):
        item.number = float(label)
    else:
        raise ValueError(f"a label is a number or a text, not a {type(label).__name__}")
