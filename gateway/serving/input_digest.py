"""The digest of a call's inputs, by which a request that ended a worker is known again."""

import numpy as np
from xxhash import xxh3_64_intdigest

from gateway.serving.call import Call


def input_digest(call: Call, *, fixed: bool) -> int:
    """Returns 64 bits that the same inputs give in every worker and process.

    `fixed`: the shapes follow from the rows and the bytes.
    Source: xxHash, XXH3; about 0.1 us for small inputs, 70 us for a MiB.
    """
    digest = call.rows
    for tensor in call.inputs:
        if isinstance(tensor, bytes | memoryview):
            digest = xxh3_64_intdigest(tensor, digest)
        elif tensor is None:
            digest = xxh3_64_intdigest(b"", digest)
        elif tensor.dtype == object:
            for element in tensor.reshape(-1).tolist():
                digest = xxh3_64_intdigest(element if isinstance(element, bytes) else str(element).encode(), digest)
        else:
            digest = xxh3_64_intdigest(np.ascontiguousarray(tensor).tobytes(), digest)
    return digest if fixed else xxh3_64_intdigest(repr(call.shapes).encode(), digest)
