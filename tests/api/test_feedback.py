"""Labels over the control service: taken whole or refused whole, naming what is wrong."""

from collections.abc import Callable
from time import time_ns
from typing import Any

import grpc
import pytest

from gateway.api.feedback_intake import AHEAD_US, MAX_ITEMS
from gateway.api.feedback_token import KEY_BYTES, Tokens
from gateway.pb import control_pb2 as pb
from gateway.records.worker.label import request_hash
from gateway.records.worker.reading import read
from gateway.records.worker.segment import entries
from tests.api.operated import TOKENS, Operated

pytestmark = pytest.mark.asyncio(loop_scope="session")
GOOD = pb.FeedbackItem(model="affine", request_id="r1", number=1.0)


def named(**fields: Any) -> pb.FeedbackItem:
    return pb.FeedbackItem(model="affine", request_id="r", **fields)


def token(model: str = "affine", request_id: str = "r1") -> str:
    return TOKENS.stamp(model, "2", "stable", 7).mint(request_id).decode()


def written(op: Operated) -> int:
    """Labels on the disk of the worker."""
    listed = [entry for entry in entries(op.log_dir) if entry.segment and entry.segment.worker == "w0.feedback"]
    contents = [read(entry.path.read_bytes(), entry.segment) for entry in listed if entry.segment]
    return sum(len(labels) for content in contents for _, labels in content.labels)


async def refusal(op: Operated, *items: pb.FeedbackItem, source: str = "") -> grpc.aio.AioRpcError:
    before = written(op)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await op.stub.SendFeedback(pb.SendFeedbackRequest(items=items, source=source))
    assert written(op) == before
    return caught.value


async def test_labels_by_token_and_by_request_id_are_on_the_disk_when_the_answer_comes(op: Operated) -> None:
    before, began_us = written(op), time_ns() // 1000
    items = [
        pb.FeedbackItem(token=token(), text="cat", row_index=3, source="review"),
        pb.FeedbackItem(model="affine", request_id="r2", number=2.5, reward=-1.0, label_time_us=17),
        pb.FeedbackItem(token=token(), model="affine", request_id="r1", reward=0.0),
    ]
    answer: pb.SendFeedbackResponse = await op.stub.SendFeedback(pb.SendFeedbackRequest(items=items, source="batch"))
    assert (answer.accepted, written(op)) == (3, before + 3)
    assert began_us <= answer.received_at_us <= time_ns() // 1000
    (entry,) = (entry for entry in entries(op.log_dir) if entry.segment and entry.segment.worker == "w0.feedback")
    assert entry.segment is not None
    by_token, by_id, both = read(entry.path.read_bytes(), entry.segment).labels[-1][1]
    assert (by_token.model, by_token.version, by_token.request_id) == ("affine", "2", "")
    assert (by_token.request_hash, by_token.row_index) == (request_hash("r1"), 3)
    assert (by_token.text, by_token.number, by_token.reward, by_token.source) == ("cat", None, None, "review")
    assert by_token.label_us == by_token.received_us == answer.received_at_us
    assert abs(by_token.predicted_us - began_us) < 10_000_000
    assert (by_id.request_hash, by_id.version, by_id.predicted_us) == (request_hash("r2"), "", 0)
    assert (by_id.number, by_id.text, by_id.reward, by_id.label_us, by_id.source) == (2.5, None, -1.0, 17, "batch")
    assert (both.request_id, both.number, both.text, both.reward) == ("r1", None, None, 0.0)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (named(), "label: neither number, text nor reward is given"),
        (pb.FeedbackItem(model="affine", number=1), "request_id is empty: name the request by it or by its feedback"),
        (pb.FeedbackItem(request_id="r", number=1), "model: model_name is empty"),
        (pb.FeedbackItem(model="a/b", request_id="r", number=1), "model: model_name 'a/b' is not a model name"),
        (pb.FeedbackItem(model="affine", request_id="r" * 257, number=1), "request_id: the request id has 257"),
        (pb.FeedbackItem(model="affine", request_id="r\n", number=1), "request_id: the request id 'r\\n' has char"),
        (named(number=1, row_index=-1), "row_index is -1, allowed: 0 to 2147"),
        (named(number=float("nan")), "number is nan, allowed: a finite number"),
        (named(reward=float("inf")), "reward is inf, allowed: a finite number"),
        (named(text=""), "text has 0 bytes, allowed: 1 to 1024"),
        (named(text="ä" * 513), "text has 1026 bytes, allowed: 1 to 1024"),
        (named(number=1, source="s" * 65), "source has 65 bytes, allowed: 1 to"),
        (named(number=1, label_time_us=-5), "label_time_us is -5, allowed: 1"),
        (pb.FeedbackItem(token="x", number=1), "token: the feedback token is malformed"),
        (pb.FeedbackItem(token="x" * 2000, number=1), "token: the feedback token is malformed"),
        (pb.FeedbackItem(token=token(), model="other", number=1), "model is 'other', the token is of another model"),
        (pb.FeedbackItem(token=token(), request_id="r2", number=1), "request_id is 'r2', the token is of another r"),
    ],
)  # fmt: skip
async def test_a_batch_with_one_wrong_item_is_refused_whole_and_the_field_is_named(
    op: Operated, item: pb.FeedbackItem, words: str
) -> None:
    error = await refusal(op, GOOD, item, GOOD)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error.details()).startswith(f"items[1].{words}")


async def test_a_label_time_far_ahead_is_refused_for_it_would_hold_against_every_later_label(op: Operated) -> None:
    ahead_us = time_ns() // 1000 + 2 * AHEAD_US
    item = named(number=1, label_time_us=ahead_us)
    error = await refusal(op, item)
    assert str(error.details()).startswith(f"items[0].label_time_us is {ahead_us}, allowed: 1 to ")


@pytest.mark.parametrize(
    "forged",
    [
        # The last two bits of the last character say nothing: B would be A.
        lambda: token()[:-1] + ("A" if token()[-1] != "A" else "E"),
        lambda: Tokens(b"\1" * KEY_BYTES).stamp("affine", "2", "stable", 7).mint("r1").decode(),
    ],
)
async def test_a_forged_token_is_refused_without_a_word_of_what_would_be_right(
    op: Operated, forged: Callable[[], str]
) -> None:
    text = forged()
    error = await refusal(op, pb.FeedbackItem(token=text, number=1))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    said = str(error.details())
    assert said == "items[0].token: the feedback token was not made by this gateway, or was changed"
    assert text not in said


async def test_a_token_of_a_model_that_is_gone_is_taken_and_a_name_that_was_never_served_is_not(op: Operated) -> None:
    await op.stub.SendFeedback(pb.SendFeedbackRequest(items=[pb.FeedbackItem(token=token("gone"), number=1)]))
    gone = pb.FeedbackItem(model="gone", request_id="r", number=1)
    error = await refusal(op, GOOD, gone)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "items[1].model: no model 'gone' is served or logged on this host"
    folder = op.log_dir.with_name("lake") / "predictions" / "model_dir=gone"
    folder.mkdir(parents=True)
    await op.stub.SendFeedback(pb.SendFeedbackRequest(items=[GOOD, gone]))
    folder.rmdir()


async def test_the_batch_has_a_limit_and_something_in_it(op: Operated) -> None:
    for count in (0, MAX_ITEMS + 1):
        error = await refusal(op, *([GOOD] * count))
        assert error.details() == f"items has {count} elements, allowed: 1 to 1000"
    answer = await op.stub.SendFeedback(pb.SendFeedbackRequest(items=[GOOD] * MAX_ITEMS))
    assert answer.accepted == MAX_ITEMS


async def test_refused_labels_are_counted(op: Operated) -> None:
    before = op.labels.counts["refused"]
    await refusal(op, GOOD, pb.FeedbackItem())
    assert op.labels.counts["refused"] == before + 2
