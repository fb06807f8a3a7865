"""One inference, as values: what is asked, the message that asks it, and the answer that comes back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.client.answer import Answer
from gateway.client.numpy_tensor import as_array, as_tensor
from gateway.pb import inference_pb2 as pb

ParameterValue = bool | int | float | str
Inputs = Mapping[str, npt.ArrayLike]
_NAMES: Final = ("x-gateway-version", "x-gateway-arm", "x-gateway-revision", "x-gateway-reason", "x-gateway-token")
CODE_PARAMETER: Final = "x-gateway-code"  # of an error on a stream


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """What is asked of a model. Without `version` the route decides; no `outputs` are all; the server makes an id.

    `metadata` are the headers of the call, the routing key among them.
    """

    model: str
    inputs: Inputs
    version: str = ""
    outputs: tuple[str, ...] = ()
    request_id: str = ""
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    metadata: tuple[tuple[str, str], ...] = ()

    def message(self) -> pb.ModelInferRequest:
        """Returns the request of the Open Inference Protocol. Raises: TypeError (an input or a parameter)."""
        message = pb.ModelInferRequest(model_name=self.model, model_version=self.version, id=self.request_id)
        for name, value in self.inputs.items():
            datatype, shape, raw = as_tensor(name, value)
            message.inputs.add(name=name, datatype=datatype.wire_name, shape=shape)
            message.raw_input_contents.append(raw)
        for name in self.outputs:
            message.outputs.add(name=name)
        for name, value in self.parameters.items():
            _set(message.parameters[name], name, value)
        return message

    def in_parts(self, rows_per_call: int) -> "Iterator[InferenceCall]":
        """Yields the calls that ask for the rows of this one, some at a time. Ids are numbered where there is one.

        Raises: ValueError (inputs whose first axes differ, or have none).
        """
        arrays = {name: np.asarray(value) if not isinstance(value, np.ndarray) else value
                  for name, value in self.inputs.items()}  # fmt: skip
        plain = {name for name, value in self.inputs.items() if not isinstance(value, np.ndarray)}
        counts = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
        if len(counts) != 1 or counts == {-1}:
            raise ValueError(f"inputs need the same first axis, the rows: {_shapes(arrays)}")
        if rows_per_call < 1:
            raise ValueError(f"rows_per_call is {rows_per_call}, it must be 1 or more")
        for start in range(0, counts.pop(), rows_per_call):
            part = {name: array[start : start + rows_per_call] for name, array in arrays.items()}
            yield replace(
                self,
                inputs={name: array.tolist() if name in plain else array for name, array in part.items()},
                request_id=f"{self.request_id}-{start // rows_per_call}" if self.request_id else "",
            )


def answer_of(response: pb.ModelInferResponse, trailers: Iterable[tuple[str, str | bytes]] = ()) -> Answer:
    """Returns the answer that a response is; on a stream it carries what the trailers of a single call say.

    Raises: ValueError (data that do not fit).
    """
    said: dict[str, str] = {name: parameter.string_param for name, parameter in response.parameters.items()}
    said |= {name: str(value) for name, value in trailers}
    outputs = {
        output.name: as_array(output.name, output.datatype, tuple(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return answer_from(response.model_name, response.model_version, response.id, outputs, said)


def answer_from(
    model: str, version: str, request_id: str, outputs: Mapping[str, npt.NDArray[np.generic]], said: Mapping[str, str]
) -> Answer:
    """Returns the answer, with what headers, trailers or parameters say of the decision."""
    served, arm, revision, reason, token = (said.get(name, "") for name in _NAMES)
    return Answer(
        outputs, model, served or version, request_id, arm, int(revision) if revision.isdigit() else 0, reason, token
    )


def _set(parameter: pb.InferParameter, name: str, value: ParameterValue) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    else:
        raise TypeError(f"parameter {name!r} is a {type(value).__name__}: bool, int, float or str are allowed")


def _shapes(arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items()) or "there are none"
