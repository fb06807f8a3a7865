"""Texts of config.pbtxt and the models that they are completed with."""

from collections.abc import Sequence

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import ConfigSource, parse_text
from gateway.serving.contract import complete
from gateway.serving.model_config import ModelConfig
from gateway.tensor import Datatype, TensorSpec

FILES = {
    "labels.txt": b"cat\ndog\n",
    "latin.txt": b"\xe9",
    "warmup/x.raw": bytes(range(16)),
    "warmup/short": b"1",
}


def read_file(name: str) -> bytes:
    if name not in FILES:
        raise FailedPrecondition(f"{name!r} is not there")
    return FILES[name]


def spec(name: str, *shape: int, datatype: Datatype = Datatype.FP32, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, datatype, shape, optional=optional)


X, Y = spec("x", -1, 4), spec("y", -1, 2)


def completed(
    text: str | ConfigSource = "",
    *,
    inputs: Sequence[TensorSpec] = (X,),
    outputs: Sequence[TensorSpec] = (Y,),
    overridable: Sequence[TensorSpec] = (),
    may_batch: bool = True,
    row_dependence: str = "",
    rows_independent: bool | None = None,
) -> ModelConfig:
    source = parse_text(text.encode()) if isinstance(text, str) else text
    return complete(
        source,
        "m",
        inputs=inputs,
        outputs=outputs,
        overridable=overridable,
        read_file=read_file,
        may_batch=may_batch,
        row_dependence=row_dependence,
        rows_independent=rows_independent,
    )
