"""How many examples property tests take: the same ones each time, or with `--hypothesis-profile=long` many more."""

from typing import Final

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

DEFAULT: Final = "test"
_EXAMPLES: Final = 100
# The same examples in each run: a red run of `make test` is the fault of the change.
settings.register_profile(DEFAULT, derandomize=True, deadline=None, max_examples=_EXAMPLES)
# A part of them, where the same tests run once more on the same source, compiled.
FEW: Final = "few"
settings.register_profile(FEW, derandomize=True, deadline=None, max_examples=_EXAMPLES // 4)
# New examples in each run, and a line that repeats one that failed.
settings.register_profile(
    "long",
    deadline=None,
    max_examples=20 * _EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_OWN: Final = "_hypothesis_internal_use_settings"  # where @settings leaves its own on a test function


def scaled(item: pytest.Item) -> None:
    """Multiplies the number of examples that a test names itself by what the profile multiplies the default by."""
    default = settings.default
    assert default is not None
    times = default.max_examples // _EXAMPLES
    function = getattr(item, "obj", None)
    if times <= 1 or function is None or not is_hypothesis_test(function):
        return
    machine = getattr(item, "cls", None)  # of a state machine, whose settings are the class's
    for owner, name in ((getattr(function, "__func__", function), _OWN), (machine, "settings")):
        own = getattr(owner, name, None)
        if isinstance(own, settings) and own.max_examples != default.max_examples:
            setattr(owner, name, settings(own, max_examples=own.max_examples * times))
