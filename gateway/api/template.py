"""Requests that were seen before: a client's messages differ only in their id and their raw data.

1. A request that was decoded is learned as a template: its bytes up to the id, the bytes from the id to the raw data,
   and the lengths of the raw tensors. What it said (names, parameters, shapes, outputs) was parsed and checked then.
2. A message that has these very bytes in these very places says the same, so neither protobuf nor the checks need to
   see it again; anything else goes the long way. A match is exact: there is no message that both would read
   differently.
3. A model has few templates, and few attempts to make one. All are forgotten only after many misses, so that a client
   whose requests all differ, or cannot be learned, does not pay for an attempt each time.

Source: protobuf encoding specification; serializers write fields in ascending order (another order is never learned).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from gateway.api.decode import Decoded, decode, read_header
from gateway.api.parameters import NONE, Value, read_request
from gateway.api.signature import Reply, Signature
from gateway.api.unread_tensor import Input
from gateway.api.varint import read_varint
from gateway.api.wire import LARGE_BYTES, UNPACKED, Packed, Raw
from gateway.pb import inference_pb2 as pb

MAX_TEMPLATES = 8  # of one model, and attempts to make one
MAX_MODELS = 1024
FORGET_AFTER = 4096  # misses
MAX_LEARNED_BYTES = 4096  # of what is not raw data
_MAX_FITTED = 16
_MAX_ID_FIELD = 2 + 0x7F  # with a length of one byte; longer ids go the long way
_LEAD_BYTES = MAX_LEARNED_BYTES + _MAX_ID_FIELD  # what is not raw data of a learned message, and an id
_MODEL_TAG, _VERSION_TAG, _ID_TAG, _RAW_TAG = 0x0A, 0x12, 0x1A, 0x3A

# The order of the raw tensors as inputs (None: as they come), shapes, rows, reply.
Fitted = tuple[tuple[int, ...] | None, Sequence[tuple[int, ...] | None], int, Reply]


class Query:
    """Holds what a request says beside its id and its raw data; read only, for a template shares it among requests.

    `packed` are typed contents that were taken out of `request`; no template has any.
    """

    __slots__ = ("fitted", "model", "packed", "parameters", "request", "streamed", "version")

    def __init__(
        self,
        model: str,
        version: str,
        parameters: Mapping[str, Value],
        request: pb.ModelInferRequest,
        *,
        streamed: bool = False,
        packed: Packed = UNPACKED,
    ) -> None:
        self.packed = packed
        self.model = model
        self.version = version
        self.parameters = parameters
        self.request = request
        self.streamed = streamed
        self.fitted: dict[Signature, Fitted] | None = None  # kept by templates only


class Template:
    """One learned request. `tail` reaches from behind the id to the first raw byte; `rest` are the other raw heads."""

    __slots__ = ("head", "query", "remaining", "rest", "sizes", "tail")

    def __init__(self, query: Query, head: bytes, tail: bytes, rest: tuple[bytes, ...], sizes: tuple[int, ...]) -> None:
        self.query = query
        self.head = head
        self.tail = tail
        self.rest = rest
        self.sizes = sizes
        self.remaining = len(tail) + sum(map(len, rest)) + sum(sizes)

    def tensors(self, message: bytes | memoryview, lead: bytes, offset: int) -> Raw | None:
        """Returns the raw tensors of a message whose tail begins at `offset`, None if it is another message.

        `lead` is the message, or as much of its beginning as any template looks at.
        """
        if not lead.startswith(self.tail, offset):
            return None
        offset += len(self.tail)
        if len(message) >= LARGE_BYTES or isinstance(message, memoryview):
            return self._views(message, offset)
        if not self.rest:
            return (message[offset:],)
        tensors = [message[offset : offset + self.sizes[0]]]
        for head, before, size in zip(self.rest, self.sizes, self.sizes[1:], strict=False):
            offset += before
            if not message.startswith(head, offset):
                return None
            offset += len(head)
            tensors.append(message[offset : offset + size])
        return tensors

    def _views(self, message: bytes | memoryview, offset: int) -> Raw | None:
        view = memoryview(message)
        tensors: list[memoryview] = []
        for head, size in zip((b"", *self.rest), self.sizes, strict=True):
            if view[offset : offset + len(head)] != head:
                return None
            offset += len(head)
            tensors.append(view[offset : offset + size])
            offset += size
        return tensors


class ModelTemplates:
    """Holds the templates of one model, and how many attempts they took."""

    __slots__ = ("attempts", "templates")

    def __init__(self) -> None:
        self.attempts = 0
        self.templates: list[Template] = []


class Templates:
    """Holds the templates of all models that are asked for, by the first field of a message: the model's name."""

    __slots__ = ("_known", "_misses")

    def __init__(self) -> None:
        self._known: dict[bytes, ModelTemplates] = {}
        self._misses = 0

    def find(self, message: bytes | memoryview) -> tuple[Query, str, Raw] | None:
        """Returns what a learned message says, its id and its raw tensors; None for one that was not learned."""
        size = len(message)
        lead = message if type(message) is bytes else bytes(message[:_LEAD_BYTES])
        known = self._known.get(lead[: 2 + lead[1]]) if size > 1 else None
        if known is None:
            return None
        for template in known.templates:
            offset = len(template.head)
            rest = size - offset - template.remaining
            # What is neither head nor remaining is the id, with its tag and its length of one byte.
            if rest < 0 or not lead.startswith(template.head):
                continue
            request_id = ""
            if rest:
                if lead[offset] != _ID_TAG or lead[offset + 1] != rest - 2 or rest > _MAX_ID_FIELD:
                    continue
                try:
                    request_id = lead[offset + 2 : offset + rest].decode()
                except UnicodeDecodeError:
                    return None
                if not request_id.isprintable():
                    return None
                offset += rest
            raw = template.tensors(message, lead, offset)
            if raw is not None:
                return template.query, request_id, raw
        return None

    def learn(self, message: bytes | memoryview, query: Query) -> None:
        """Learns a decoded message, so that its like is found, if its form allows it and there is room."""
        key = bytes(message[: 2 + message[1]])
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MAX_MODELS:
                self._known.clear()
            known = self._known[key] = ModelTemplates()
        elif known.attempts >= MAX_TEMPLATES:
            self._misses += 1
            if self._misses >= FORGET_AFTER:
                self._misses = 0
                self._known.clear()
            return
        known.attempts += 1
        template = _template(bytes(message), query)
        if template is not None:
            known.templates.append(template)


def decode_query(query: Query, raw: Raw, signature: Signature) -> Decoded:
    """Decodes as `decode` does, but looks only at the data of a query that was checked against this signature before.

    Raises: InvalidArgument, Unimplemented.
    """
    known = query.fitted
    fitted = known.get(signature) if known is not None else None
    if fitted is not None:
        order, shapes, rows, reply = fitted
        # The lengths of the raw data are the template's, and they were right.
        inputs: list[Input] = list(raw) if order is None else [None if p < 0 else raw[p] for p in order]
        return inputs, shapes, rows, reply
    decoded = decode(query.request, raw, signature, query.packed)
    if known is not None and all(plan.takes_any_bytes for plan in signature.plans.values()):
        if len(known) >= _MAX_FITTED:
            known.clear()
        places = {tensor.name: place for place, tensor in enumerate(query.request.inputs)}
        order = tuple(places.get(name, -1) for name in signature.plans)
        _, shapes, rows, reply = decoded
        known[signature] = (None if order == tuple(range(len(raw))) else order, tuple(shapes), rows, reply)
    return decoded


def _template(message: bytes, query: Query) -> Template | None:
    """Returns the template of a message, None where its form does not allow one."""
    fields = _fields(message)
    if fields is None:
        return None
    tags = [tag for tag, _, _ in fields]
    raw = [place for place, tag in enumerate(tags) if tag == _RAW_TAG]
    leading = [tag for tag in tags if tag in (_MODEL_TAG, _VERSION_TAG, _ID_TAG)]
    in_order = tags[: len(leading)] == leading == sorted(set(leading)) and _MODEL_TAG in leading
    if not raw or not in_order or raw != list(range(raw[0], len(tags))) or message[1] >= 0x80:
        return None
    # Each field ends where the next begins: `starts[n]` is where field n's tag is.
    starts = [start for _, start, _ in fields]
    data = [(fields[place][2], starts[place + 1] if place + 1 < len(fields) else len(message)) for place in raw]
    has_id = _ID_TAG in leading
    named = len(leading) - has_id
    if has_id and message[starts[named] + 1] >= 0x80:
        return None
    tail_from = starts[named + has_id]
    if data[0][0] > MAX_LEARNED_BYTES:
        return None
    rest = tuple(message[end:begin] for (_, end), (begin, _) in pairwise(data))
    request = pb.ModelInferRequest.FromString(message[: starts[raw[0]]])
    request.ClearField("id")
    learned = Query(query.model, query.version, query.parameters or NONE, request)
    learned.fitted = {}
    return Template(
        learned,
        message[: starts[named]],
        message[tail_from : data[0][0]],
        rest,
        tuple(end - begin for begin, end in data),
    )


def _fields(message: bytes) -> list[tuple[int, int, int]] | None:
    """Returns each field's tag, where it begins and where its data begin; None for a message of another form."""
    fields: list[tuple[int, int, int]] = []
    offset, size = 0, len(message)
    while offset < size:
        start = offset
        tag = message[offset]
        if tag & 7 != 2 or tag >= 0x80:
            return None
        length, offset = read_varint(message, offset + 1)
        if offset < 0 or length > size - offset:
            return None
        fields.append((tag, start, offset))
        offset += length
    return fields


def read_query(request: pb.ModelInferRequest, raw: Raw, packed: Packed, *, streamed: bool) -> tuple[Query, str]:
    """Returns what the request says, and its id.

    Raises: InvalidArgument.
    """
    model, version, request_id = read_header(request, raw)
    parameters = read_request(request) if len(request.parameters) else NONE
    return Query(model, version, parameters, request, streamed=streamed, packed=packed), request_id
