"""The view that routing has of a request."""

from typing import Final, Protocol


class Attributes(Protocol):
    """Answers what rules and key sources read of a request; every method is cheap and answers None for what is absent.

    An edge that knows them has `method`, and `tenant` and `identity` of the caller as far as that is proven.
    """

    def metadata(self, name: str) -> str | None: ...

    def parameter(self, name: str) -> str | int | float | bool | None: ...

    def input_value(self, name: str) -> str | None:
        """The first element of the named input tensor as text, if it is a scalar or has one element per row."""

    @property
    def request_id(self) -> str: ...

    @property
    def requested_version(self) -> str: ...


class NoAttributes:
    """The attributes of a request that brings none, such as one that the gateway made."""

    request_id = ""
    requested_version = ""

    def metadata(self, name: str) -> str | None:
        return None

    def parameter(self, name: str) -> str | int | float | bool | None:
        return None

    def input_value(self, name: str) -> str | None:
        return None


NO_ATTRIBUTES: Final = NoAttributes()
