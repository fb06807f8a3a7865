"""What a chain of three small models costs in one request, beside three requests.

python docs/examples/ensembles/price.py models 127.0.0.1:8001
"""

import sys
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from gateway.client import Client

repository, server = Path(sys.argv[1]), sys.argv[2]
STEPS, CALLS, ROUNDS = 3, 200, 7


def scaling(factor):
    weight = numpy_helper.from_array(np.full(16, factor, np.float32), "factor")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 16]) for name in ("x", "y")]
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    graph = helper.make_graph([node], "scaling", tensors[:1], tensors[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


steps = []
for place in range(STEPS):
    directory = repository / f"price_{place}" / "1"
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(scaling(place + 2).SerializeToString())
    maps = f'input_map {{ key: "x" value: "t{place}" }} output_map {{ key: "y" value: "t{place + 1}" }}'
    steps.append(f'step {{ model_name: "price_{place}" model_version: -1 {maps} }}')
tensor = 'name: "t%d" data_type: TYPE_FP32 dims: 16'
text = f'platform: "ensemble" max_batch_size: 64 input {{ {tensor % 0} }} output {{ {tensor % STEPS} }}'
(repository / "price" / "1").mkdir(parents=True)
(repository / "price" / "config.pbtxt").write_text(f"{text} ensemble_scheduling {{ {' '.join(steps)} }}")

row = np.ones((1, 16), np.float32)
with Client(server) as client:

    def one_by_one():
        value = row
        for place in range(STEPS):
            value = client.infer(f"price_{place}", {"x": value})["y"]
        return value

    def together():
        return client.infer("price", {"t0": row})[f"t{STEPS}"]

    def cost_us(ask):
        begin = perf_counter()
        for _ in range(CALLS):
            ask()
        return (perf_counter() - begin) / CALLS * 1e6

    while not client.is_ready("price"):
        sleep(0.2)
    assert np.array_equal(one_by_one(), together())
    rounds = [(cost_us(one_by_one), cost_us(together)) for _ in range(ROUNDS)]  # in turn: the machine is shared
apart, whole = (median(column) for column in zip(*rounds, strict=True))
print(f"three requests {apart:.0f} us, one request {whole:.0f} us: {apart / whole:.2f} times as fast")
