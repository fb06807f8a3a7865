"""JSON of some hundred thousand numbers: read and written on a thread, with the same result as on the loop."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.api.stand import Stand
from tests.rest.asking import ask, path_of

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROWS = 70_000
ROW = [1, 2.5, 3, 119]
ASKED: dict[str, tuple[str, object, Callable[[Any], object], object]] = {
    "second protocol": (
        path_of("wide"),
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [ROWS, 4], "data": ROW * ROWS}]},
        lambda answer: answer["outputs"][0]["data"],
        [float(value) for value in ROW] * ROWS,
    ),
    "first protocol": (
        "/v1/models/wide:predict",
        {"instances": [ROW] * (ROWS // 2)},
        lambda answer: answer["predictions"],
        [[float(value) for value in ROW]] * (ROWS // 2),
    ),
}


@pytest.mark.parametrize("protocol", ASKED)
async def test_it_is_the_same_as_of_few(stand: Stand, protocol: str) -> None:
    path, body, told, expected = ASKED[protocol]
    text = json.dumps(body)
    assert len(text) > 1 << 19
    answer = await ask(stand, "POST", path, text.encode())
    assert answer.status == 200, answer.body[:200]
    assert np.array_equal(np.asarray(told(json.loads(answer.body))), np.asarray(expected))


@pytest.mark.parametrize("protocol", ASKED)
async def test_the_first_element_that_does_not_fit_is_named_by_its_place(stand: Stand, protocol: str) -> None:
    path, body, _, expected = ASKED[protocol]
    text = json.dumps(body)
    place = text.rindex("119")
    wrong = await ask(stand, "POST", path, (text[:place] + "true" + text[place + 3 :]).encode())
    last = np.asarray(expected).size - 1
    assert wrong.status == 400
    assert f"element {last} is true, a number within the range of FP32 is expected" in json.loads(wrong.body)["error"]
    broken = await ask(stand, "POST", path, text[:-1].encode())
    assert (broken.status, "failed to parse the request JSON" in json.loads(broken.body)["error"]) == (400, True)
    assert stand.engine.in_flight == 0
