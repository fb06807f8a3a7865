"""The client package against the product, and every example of its page."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gateway.client import Answer, AsyncClient, CallError, Client
from tests.e2e.conftest import Demo
from tests.e2e.product import Product, command, environment

pytestmark = pytest.mark.usefixtures("no_routes")
EXAMPLES = re.findall(
    r"```python\n(import.*?|from.*?)```", (Path(__file__).parents[2] / "docs/client.md").read_text(), re.DOTALL
)
SPLIT = """\
apiVersion: gateway/v1
kind: Route
metadata: {model: digits}
spec:
  arms: {a: {version: "1"}, b: {version: "2"}}
  key: {from: [metadata:x-user-id]}
  strategy: {ab: {weights: {a: 50%, b: 50%}, control: a}}
"""


@pytest.fixture(scope="module")
def images(demo: Demo) -> dict[str, np.ndarray]:
    with np.load(demo.samples / "digits.npz") as file:
        return dict(file)


@pytest.fixture
def client(product: Product) -> Iterator[Client]:
    with Client(product.server, connections=2) as made:
        yield made


def test_an_answer_has_the_models_outputs(client: Client, images: dict[str, np.ndarray]) -> None:
    answer = client.infer("digits", {"image": images["inputs/image"][:3]}, version="1", request_id="three")
    np.testing.assert_array_equal(answer["label"], images["outputs/1/label"][:3])
    assert (answer.model, answer.version, answer.request_id) == ("digits", "1", "three")


def test_a_key_keeps_its_version_and_the_explanation_agrees(product: Product, client: Client) -> None:
    applied = command("routes", "apply", "-f", "-", "--server", product.server, text=SPLIT)
    assert applied.returncode == 0, applied.stderr
    image = np.zeros((1, 64), np.float32)
    for key in (f"user-{number}" for number in range(8)):
        answers = [client.infer("digits", {"image": image}, key=key) for _ in range(2)]
        why = client.explain("digits", key=key)
        assert {(answer.arm, answer.version, answer.revision, answer.reason) for answer in answers} == {
            (why.arm, why.version, why.revision, why.reason)
        }


def test_rows_are_joined_in_their_order(client: Client, images: dict[str, np.ndarray]) -> None:
    rows = images["inputs/image"][:50]
    joined = client.infer_rows("digits", {"image": rows}, rows_per_call=7, version="2")
    np.testing.assert_array_equal(joined["label"], images["outputs/2/label"][:50])
    assert len(joined.answers) == 8


def test_a_stream_goes_on_behind_an_error(client: Client, images: dict[str, np.ndarray]) -> None:
    good, bad = {"image": images["inputs/image"][:1]}, {"image": np.zeros((1, 3), np.float32)}
    first, second, third = client.stream("digits", [good, bad, good], version="2")
    assert isinstance(second, CallError)
    assert second.code == "INVALID_ARGUMENT"
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    np.testing.assert_array_equal(third["label"], images["outputs/2/label"][:1])


def test_feedback_names_its_answer(product: Product, client: Client) -> None:
    answer = client.infer("digits", {"image": np.zeros((2, 64), np.float32)})
    assert answer.token
    assert client.feedback(answer, label=[3, 5]) == 2


def test_a_refusal_says_code_and_request(client: Client) -> None:
    with pytest.raises(CallError, match="nosuch") as raised:
        client.infer("nosuch", {"x": [[1.0]]}, request_id="r-1")
    error = raised.value
    assert (error.code, error.retryable, error.request_id) == ("NOT_FOUND", False, "r-1")


def test_nobody_there_is_said_within_the_time() -> None:
    with Client("127.0.0.1:1") as alone:
        assert not alone.is_ready()
        with pytest.raises(CallError) as raised:
            alone.infer("digits", {"x": [[1.0]]}, timeout_s=0.2)
    assert raised.value.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE")


def test_readiness(client: Client) -> None:
    assert client.is_ready()
    assert client.is_ready("digits", "1")
    assert not client.is_ready("digits", "99")


async def test_the_asynchronous_client_does_the_same(product: Product, images: dict[str, np.ndarray]) -> None:
    rows = images["inputs/image"][:20]
    async with AsyncClient(product.server) as client:
        assert await client.is_ready("digits")
        answers = await asyncio.gather(*(client.infer("digits", {"image": rows[:1]}, version="1") for _ in range(4)))
        assert {answer.version for answer in answers} == {"1"}
        joined = await client.infer_rows("digits", {"image": rows}, rows_per_call=6, version="2")
        np.testing.assert_array_equal(joined["label"], images["outputs/2/label"][:20])
        outcomes = [one async for one in client.stream("digits", [{"image": rows[:1]}, {"image": rows[:1, :3]}])]
        assert [type(outcome) for outcome in outcomes] == [Answer, CallError]
        assert await client.feedback(answers[0], label=3) == 1
        assert (await client.explain("digits")).steps
        with pytest.raises(CallError, match="NOT_FOUND"):
            await client.infer("nosuch", {"x": [[1.0]]})
        with pytest.raises(CallError, match="NOT_FOUND"):
            await client.infer_rows("nosuch", {"x": [[1.0], [2.0]]}, rows_per_call=1)


@pytest.fixture
def rest(product: Product) -> str:
    return f"http://127.0.0.1:{product.port('http')}"


def test_where_grpc_does_not_connect_rest_answers(rest: str, images: dict[str, np.ndarray]) -> None:
    rows = images["inputs/image"][:9]
    with Client("127.0.0.1:1", rest=rest, connect_s=0.2) as client:
        assert client.is_ready()
        assert client.is_ready("digits", "1")
        assert not client.is_ready("digits", "99")
        answer = client.infer("digits", {"image": rows}, version="1", request_id="three", outputs=("label",))
        np.testing.assert_array_equal(answer["label"], images["outputs/1/label"][:9])
        assert (answer.version, answer.request_id, list(answer.outputs)) == ("1", "three", ["label"])
        assert answer.token
        assert client.infer_rows("digits", {"image": rows}, rows_per_call=4, version="2")["label"].shape[0] == 9
        for arguments, code in (
            ({"model": "nosuch", "inputs": {"x": [[1.0]]}}, "NOT_FOUND"),
            ({"model": "digits", "inputs": {"image": rows[:, :3]}}, "INVALID_ARGUMENT"),
        ):
            with pytest.raises(CallError) as raised:
                client.infer(**arguments, request_id="r-1")  # type: ignore[arg-type]
            assert (raised.value.code, raised.value.request_id) == (code, "r-1")


async def test_the_asynchronous_client_falls_back_as_well(rest: str) -> None:
    async with AsyncClient("127.0.0.1:1", rest=rest, connect_s=0.2) as client:
        assert (await client.infer("digits", {"image": np.zeros((1, 64), np.float32)}, version="1")).version == "1"


def test_rest_and_grpc_answer_the_same(product: Product, rest: str, images: dict[str, np.ndarray]) -> None:
    image = {"image": images["inputs/image"][:5]}
    with Client(product.server) as client, Client("127.0.0.1:1", rest=rest, connect_s=0.2) as other:
        one, two = (each.infer("digits", image, version="2") for each in (client, other))
    assert (one.version, one.arm, one.revision, one.reason) == (two.version, two.arm, two.revision, two.reason)
    for name, array in one.outputs.items():
        np.testing.assert_array_equal(array, two[name])


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_an_example_of_the_page_runs(product: Product, index: int) -> None:
    text = EXAMPLES[index].replace("127.0.0.1:8001", product.server)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
