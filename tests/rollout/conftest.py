"""The judge that tests of several modules of the room start from."""

from collections.abc import AsyncIterator

import pytest

from tests.rollout.rolling import Rolling, opened
from tests.valkey import Valkey


@pytest.fixture
async def rolling(valkey: Valkey) -> AsyncIterator[Rolling]:
    async with opened(valkey) as made:
        yield made
