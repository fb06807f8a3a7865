"""What an application with KServe's client does, on both of its protocols; prints what it got as JSON.

It runs by itself, with packages that `make test` installs apart: python -m tests.rest.kserve_program URL
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def request(*, binary: bool) -> Any:
    tensor = InferInput("x", list(ROWS.shape), "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    outputs = [RequestedOutput("y", {"binary_data": True})] if binary else None
    return InferRequest("affine", [tensor], request_outputs=outputs)


async def second(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=20))
    answers = [await client.infer(url, request(binary=binary), model_name="affine") for binary in (False, True)]
    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model": await client.is_model_ready(url, "affine"),
        "nobody": await client.is_model_ready(url, "nobody"),
        "rows": [answer.outputs[0].as_numpy().tolist() for answer in answers],
    }


async def first(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v1", retries=0, timeout=20))
    return {
        "live": await client.is_server_live(url),
        "model": await client.is_model_ready(url, "affine"),
        "answer": await client.infer(url, {"instances": ROWS.tolist()}, model_name="affine"),
    }


async def main(url: str) -> None:
    print(json.dumps({"v2": await second(url), "v1": await first(url)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
