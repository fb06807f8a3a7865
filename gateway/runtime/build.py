"""How this installation was built."""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec


def is_compiled() -> bool:
    """Returns whether what every request runs through is compiled (see `setup.py`): the same source, less CPU."""
    spec = find_spec("gateway.rpc.callback_call")
    return spec is not None and spec.origin is not None and spec.origin.endswith(tuple(EXTENSION_SUFFIXES))
