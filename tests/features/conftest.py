"""The store that tests of several modules of the room start from."""

from collections.abc import Iterator

import pytest
import redis

from tests.valkey import Valkey


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("store"), append_only=False).start()
    yield server
    server.stop()


@pytest.fixture
def store(valkey: Valkey) -> Iterator["redis.Redis"]:
    with redis.Redis(unix_socket_path=str(valkey.socket_path)) as client:
        client.flushall()
        client.hset("user:1", mapping={"score": "0.25", "visits": "3", "embedding": "[1, 2]", "at": "100"})
        client.hset("user:2", mapping={"score": "much", "visits": "4"})
        client.set("user:3", "no hash")
        yield client
