"""The table of the control service against the proto."""

import pytest

from gateway.api.control_service import check_handlers
from gateway.pb import control_pb2

METHODS = frozenset(control_pb2.DESCRIPTOR.services_by_name["Control"].methods_by_name)


def test_a_full_table_passes() -> None:
    check_handlers(METHODS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_without_a_handler_is_an_error_at_the_start(name: str) -> None:
    with pytest.raises(TypeError, match=f"methods without a handler: {name}$"):
        check_handlers(METHODS - {name})


def test_a_handler_without_a_method_is_an_error_too() -> None:
    with pytest.raises(TypeError, match="no method Aply"):
        check_handlers(METHODS | {"Aply"})
