"""Which signatures of TensorFlow Serving a version has, by its contract: `serving_default`, `classify`, `regress`.

1. Each version has `serving_default`: `Predict` with its own inputs and outputs.
2. `classify`: rows of features go in (`example_columns`), and out come the scores of two or more classes (the only
   floating-point output, [rows, classes]) or else the class alone (the only output, [rows], text or whole numbers).
3. `regress`: rows of features go in, and the only floating-point output is one number for each.

Source: tensorflow_serving/apis/{classification,regression}.proto; TensorFlow's signature constants.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.api.tfserving.example_columns import takes_examples
from gateway.api.tfserving.model_choice import DEFAULT_SIGNATURE, spec_of
from gateway.api.tfserving.tensor_proto import CARRIED
from gateway.errors import InvalidArgument
from gateway.pb import tensorflow_pb2 as tf
from gateway.pb import tensorflow_serving_pb2 as tfs
from gateway.tensor import Array, Datatype, TensorSpec

CLASSIFY: Final = "classify"
REGRESS: Final = "regress"
METHODS_OF: Final = {
    DEFAULT_SIGNATURE: "tensorflow/serving/predict",
    CLASSIFY: "tensorflow/serving/classify",
    REGRESS: "tensorflow/serving/regress",
}
_FLOATS: Final = (Datatype.FP16, Datatype.FP32, Datatype.FP64)
_CLASSES: Final = (Datatype.BYTES, Datatype.INT64, Datatype.INT32)


def class_output(outputs: Sequence[TensorSpec]) -> TensorSpec:
    """Returns the output that `Classify` tells. Raises: InvalidArgument where there is no single one."""
    floats = [spec for spec in outputs if spec.datatype in _FLOATS]
    if len(floats) == 1 and len(floats[0].shape) == 2 and floats[0].shape[0] == -1 and floats[0].shape[1] not in (0, 1):
        return floats[0]
    if len(outputs) == 1 and outputs[0].datatype in _CLASSES and outputs[0].shape == (-1,):
        return outputs[0]
    raise InvalidArgument("the model has no output of scores by class, or of classes alone: use Predict")


def value_output(outputs: Sequence[TensorSpec]) -> TensorSpec:
    """Returns the output that `Regress` tells. Raises: InvalidArgument where there is no single one."""
    floats = [spec for spec in outputs if spec.datatype in _FLOATS]
    if len(floats) == 1 and floats[0].shape in ((-1,), (-1, 1)):
        return floats[0]
    raise InvalidArgument("the model has no single output of one number for each row: use Predict")


def fitting_signatures(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> dict[str, tf.SignatureDef]:
    """Returns the signatures by name. Tensors whose datatype TensorFlow does not have are left out."""
    names = [DEFAULT_SIGNATURE]
    if takes_examples(inputs):
        for name, find in ((CLASSIFY, class_output), (REGRESS, value_output)):
            try:
                find(outputs)
            except InvalidArgument:
                continue
            names.append(name)
    told = _told(inputs), _told(outputs)
    return {name: tf.SignatureDef(inputs=told[0], outputs=told[1], method_name=METHODS_OF[name]) for name in names}


def classification_response(specs: Sequence[TensorSpec], arrays: Sequence[Array], model: str, version: str) -> bytes:
    """Returns the serialized ClassificationResponse: of each row its classes in their order, or its one class."""
    response = tfs.ClassificationResponse(model_spec=spec_of(model, version, CLASSIFY))
    result = response.result
    (spec,), (array,) = specs, arrays
    if array.ndim == 1:
        for value in array.tolist():
            label = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            result.classifications.add().classes.add(label=label)
        return response.SerializeToString()
    labels = [spec.labels[place] if place < len(spec.labels) else str(place) for place in range(array.shape[1])]
    for row in array.astype(np.float32).tolist():
        classes = result.classifications.add().classes
        for label, score in zip(labels, row, strict=True):
            classes.add(label=label, score=score)
    return response.SerializeToString()


def regression_response(specs: Sequence[TensorSpec], arrays: Sequence[Array], model: str, version: str) -> bytes:
    """Returns the serialized RegressionResponse: the number of each row."""
    response = tfs.RegressionResponse(model_spec=spec_of(model, version, REGRESS))
    for value in arrays[0].astype(np.float32).reshape(-1).tolist():
        response.result.regressions.add(value=value)
    return response.SerializeToString()


def _told(specs: Sequence[TensorSpec]) -> dict[str, tf.TensorInfo]:
    return {
        spec.name: tf.TensorInfo(
            name=spec.name,
            dtype=CARRIED[spec.datatype].number,  # type: ignore[arg-type]
            tensor_shape=_told_shape(spec),
        )
        for spec in specs
        if spec.datatype in CARRIED
    }


def _told_shape(spec: TensorSpec) -> tf.TensorShapeProto:
    if spec.any_shape:
        return tf.TensorShapeProto(unknown_rank=True)
    return tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=size) for size in spec.shape])
