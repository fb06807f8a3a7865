"""A version's contract, compiled for decoding requests and encoding answers.

What repeats from request to request (which shapes fit, which outputs are asked for, the constant part of an answer) is
worked out once and kept; each of these memories is bounded.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from gateway.api.naming import shown
from gateway.errors import InvalidArgument
from gateway.serving.model_config import ModelConfig
from gateway.serving.version import Version
from gateway.tensor import Datatype, TensorSpec

MAX_RANK = 16
MAX_BYTES = 1 << 40  # far beyond any message; keeps a zero dimension from hiding an absurd one
_REMEMBERED_SHAPES = 256
_REMEMBERED_REPLIES = 256
_REMEMBERED_VERSIONS = 1024


class FittedShape(NamedTuple):
    """Is a shape that fits an input. Units: `size_bytes` of its raw data, -1 where that depends on the elements."""

    shape: tuple[int, ...]
    rows: int
    size_bytes: int


class Skeleton(NamedTuple):
    """The constant bytes of an answer: `heads[i]` go before the raw data of output i.

    Where `exact[i]`, the head ends with the length of the raw data; else the length has to be put behind it.
    """

    heads: tuple[bytes, ...]
    exact: tuple[bool, ...]


# What skeletons are found by: the rows where these say everything, else the shapes of the outputs.
SkeletonKey = int | tuple[tuple[int, ...], ...]


class Reply:
    """Says what a request wants back: which outputs, in which form, and the skeletons of such answers."""

    __slots__ = ("by_element", "classes", "json_heads", "skeletons", "specs", "typed", "wanted")

    def __init__(
        self,
        outputs: Sequence[TensorSpec],
        *,
        wanted: tuple[int, ...] | None = None,
        classes: tuple[int, ...] | None = None,
        typed: bool = False,
    ) -> None:
        self.wanted = wanted
        self.specs = tuple(outputs) if wanted is None else tuple(outputs[index] for index in wanted)
        self.classes = classes
        # An answer is raw or typed as a whole; FP16 and BF16 exist only raw.
        self.typed = typed and not any(spec.datatype in (Datatype.FP16, Datatype.BF16) for spec in self.specs)
        # Whether an answer is written element by element, which takes long where there are many.
        self.by_element = (
            self.typed or classes is not None or any(spec.datatype is Datatype.BYTES for spec in self.specs)
        )
        self.skeletons: dict[SkeletonKey, Skeleton] = {}
        # What repeats in answers by REST, by what skeletons are found by and by which outputs are binary.
        self.json_heads: dict[tuple[SkeletonKey, tuple[bool, ...]], tuple[bytes, ...]] = {}


class InputPlan:
    """One input of a version: its place and the shapes that fit."""

    __slots__ = ("batches", "datatype", "fits", "index", "max_rows", "model", "spec", "takes_any_bytes", "wire_name")

    def __init__(self, index: int, spec: TensorSpec, *, model: str, batches: bool, max_rows: int) -> None:
        self.index = index
        self.spec = spec
        self.model = model
        self.batches = batches
        self.max_rows = max_rows  # 0: no limit
        self.datatype = spec.datatype
        self.wire_name = spec.datatype.wire_name
        self.takes_any_bytes = spec.datatype not in (Datatype.BOOL, Datatype.BYTES)  # of the right length
        self.fits: dict[tuple[int, ...], FittedShape] = {}

    def fit(self, shape: tuple[int, ...]) -> FittedShape:
        """Returns the shape, checked.

        Raises: InvalidArgument.
        """
        self._check_dimensions(shape)
        expected = self.spec.shape
        matches = self.spec.any_shape or (
            len(shape) == len(expected) and all(want in (-1, size) for size, want in zip(shape, expected, strict=True))
        )
        if not matches:
            raise InvalidArgument(
                f"unexpected shape for input {self.spec.name!r} for model {self.model!r}. "
                f"Expected {_listed(expected)}, got {_listed(shape)}"
            )
        rows = shape[0] if self.batches else 1
        if self.batches and self.max_rows and rows > self.max_rows:
            raise InvalidArgument(
                f"inference request batch-size must be <= {self.max_rows} for {self.model!r}, "
                f"got {rows} for input {self.spec.name!r}"
            )
        size_bytes = prod(shape) * self.datatype.size if self.datatype is not Datatype.BYTES else -1
        fit = FittedShape(shape, rows, size_bytes)
        if len(self.fits) >= _REMEMBERED_SHAPES:
            self.fits.clear()
        self.fits[shape] = fit
        return fit

    def _check_dimensions(self, shape: tuple[int, ...]) -> None:
        if len(shape) > MAX_RANK:
            raise InvalidArgument(f"input {self.spec.name!r} has {len(shape)} dimensions, the limit is {MAX_RANK}")
        if any(size < 0 for size in shape):
            raise InvalidArgument(
                f"All input dimensions should be specified for input {self.spec.name!r} for model {self.model!r}, "
                f"got {_listed(shape)}"
            )
        if prod(size or 1 for size in shape) * (self.datatype.size or 1) > MAX_BYTES:
            raise InvalidArgument(f"input {self.spec.name!r} of shape {_listed(shape)} is larger than any message")


class Signature:
    """The compiled contract of one version."""

    __slots__ = (
        "config",
        "inputs",
        "model",
        "output_index",
        "outputs",
        "plans",
        "raw_reply",
        "replies",
        "required",
        "typed_reply",
        "version",
    )

    def __init__(self, model: str, version: str, config: ModelConfig) -> None:
        self.model = model
        self.version = version
        self.config = config
        self.inputs = config.inputs
        self.outputs = config.outputs
        self.plans = {
            spec.name: InputPlan(
                index, spec, model=model, batches=config.max_batch_size > 0, max_rows=config.max_request_rows
            )
            for index, spec in enumerate(config.inputs)
        }
        self.required = sum(not spec.optional for spec in config.inputs)
        self.output_index = {spec.name: index for index, spec in enumerate(config.outputs)}
        self.raw_reply = Reply(config.outputs)
        self.typed_reply = Reply(config.outputs, typed=True)
        self.replies: dict[tuple[tuple[int, ...], tuple[int, ...], bool], Reply] = {}

    def reply(self, wanted: tuple[int, ...], classes: tuple[int, ...], *, typed: bool) -> Reply:
        """Returns the reply for these outputs, with the number of classes asked of each (0: its values)."""
        key = (wanted, classes, typed)
        reply = self.replies.get(key)
        if reply is None:
            if len(self.replies) >= _REMEMBERED_REPLIES:
                self.replies.clear()
            everything = wanted == tuple(range(len(self.outputs)))
            reply = self.replies[key] = Reply(
                self.outputs,
                wanted=None if everything else wanted,
                classes=classes if any(classes) else None,
                typed=typed,
            )
        return reply


class Signatures:
    """Holds the signatures of the versions in use."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Signature] = {}

    def of(self, version: Version) -> Signature:
        """Returns the signature of this very version: a reload under the same name makes a new one."""
        key = (version.model, version.name)
        made = self._made.get(key)
        if made is None or made.config is not version.config:
            if len(self._made) >= _REMEMBERED_VERSIONS:
                self._made.clear()
            made = self._made[key] = Signature(version.model, version.name, version.config)
        return made


def unexpected_input(name: str, signature: Signature) -> InvalidArgument:
    """Returns the refusal of an input that the version does not have."""
    known = f"its inputs are {', '.join(signature.plans)}" if signature.plans else "it takes no inputs"
    return InvalidArgument(f"unexpected inference input {shown(name)} for model {signature.model!r}; {known}")


def _listed(shape: Sequence[int]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"
