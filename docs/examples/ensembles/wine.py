"""Trains a scaler and a classifier, writes them with a step that names the class, and asks all three in one request.

pip install scikit-learn skl2onnx
python docs/examples/ensembles/wine.py models 127.0.0.1:8001
"""

import sys
from pathlib import Path
from time import sleep

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from gateway.client import Client

repository, server = Path(sys.argv[1]), sys.argv[2]
wine = load_wine()
rows = wine.data.astype(np.float32)
scaler = StandardScaler().fit(rows)
scaled = scaler.transform(rows).astype(np.float32)
classifier = LogisticRegression().fit(scaled, wine.target)


def naming(names):
    """What scikit-learn has no step for: the name and the probability of the likeliest class."""
    nodes = [
        helper.make_node("ArgMax", ["scores"], ["place"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "place"], ["name"]),
        helper.make_node("ReduceMax", ["scores"], ["confidence"], axes=[1], keepdims=0),
    ]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, len(names)])
    outputs = [
        helper.make_tensor_value_info("name", TensorProto.STRING, [None]),
        helper.make_tensor_value_info("confidence", TensorProto.FLOAT, [None]),
    ]
    texts = numpy_helper.from_array(np.array(names, object), "names")
    graph = helper.make_graph(nodes, "naming", [scores], outputs, [texts])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(model, converted):
    """Puts version 1 of a model into the repository, in one step."""
    making = repository / model / ".making"
    making.mkdir(parents=True)
    (making / "model.onnx").write_bytes(converted.SerializeToString())
    making.rename(repository / model / "1")


write("wine_scaler", to_onnx(scaler, rows[:1], target_opset=17))
write("wine_classifier", to_onnx(classifier, scaled[:1], options={"zipmap": False}, target_opset=17))
write("wine_names", naming([str(name) for name in wine.target_names]))

# The version of an ensemble is an empty directory: what it does is in config.pbtxt.
config = Path(__file__).with_name("config.pbtxt").read_text()
(repository / "wine_by_name" / "1").mkdir(parents=True)
(repository / "wine_by_name" / "config.pbtxt").write_text(config)

with Client(server) as client:
    while not client.is_ready("wine_by_name"):
        sleep(0.2)
    answer = client.infer("wine_by_name", {"row": rows[:64]})
expected = wine.target_names[classifier.predict(scaled[:64])]
assert answer["name"].tolist() == expected.tolist()
assert np.abs(answer["confidence"] - classifier.predict_proba(scaled[:64]).max(axis=1)).max() < 1e-4
print("the same answers as scikit-learn:", answer["name"][0], f"{answer['confidence'][0]:.3f}")
