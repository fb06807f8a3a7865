"""Sinks as an operator configures them."""

import subprocess
import sys

import pytest

from gateway.errors import InvalidArgument
from gateway.records.sinks.target import parse_targets
from gateway.runtime.config import from_json
from gateway.runtime.config_parser import parse

S3 = "s3://bucket/prefix?region=eu-west-1"
REDIS = "redis://user:s3cret@logs:6379/2?stream=rows&maxlen=5000"
KAFKA = "kafka://one:9092,two:9092/rows?sasl.password=s3cret&keep_seconds=60"


@pytest.mark.parametrize(
    ("options", "environ", "file"),
    [
        ({"sink": f"{S3}, {REDIS},{KAFKA}"}, {}, {}),
        ({}, {"GATEWAY_SINK": f"{S3},{REDIS},{KAFKA}"}, {}),
        ({}, {}, {"sink": [S3, REDIS, KAFKA]}),
        ({"sink": [f"{S3},{REDIS}", KAFKA]}, {"GATEWAY_SINK": "s3://another"}, {}),
    ],
)
def test_several_sinks_are_one_option_and_reach_the_children(
    options: dict[str, object], environ: dict[str, str], file: dict[str, object]
) -> None:
    config = from_json(parse(options, environ, file).to_json())
    s3, redis, kafka = parse_targets(config.log.sinks)
    assert (s3.kind, s3.place, s3.options) == ("s3", "bucket/prefix", {"region": "eu-west-1"})
    assert (redis.kind, redis.place, redis.address) == ("redis", "rows", "redis://user:s3cret@logs:6379/2")
    assert (kafka.kind, kafka.place, kafka.address) == ("kafka", "rows", "one:9092,two:9092")
    assert (kafka.options, kafka.keeping.max_age_s) == ({"sasl.password": "s3cret"}, 60.0)
    assert (redis.keeping.max_age_s, redis.keeping.max_bytes) == (7200.0, 4 << 30)


def test_the_name_of_a_sink_stays_when_only_its_password_changes_and_can_be_chosen() -> None:
    first, second = parse_targets(REDIS), parse_targets(REDIS.replace("s3cret", "renewed"))
    assert first[0].name == second[0].name != parse_targets(REDIS.replace("=rows", "=others"))[0].name
    assert parse_targets(f"{REDIS}&name=mine")[0].name == "mine"


def test_no_password_is_shown() -> None:
    config = parse({"sink": f"{REDIS},{KAFKA}"}, {}, {})
    assert "s3cret" not in f"{config!r}{config.dump()}{parse_targets(config.log.sinks)!r}"
    with pytest.raises(InvalidArgument) as caught:
        parse({"sink": "redis://user:s3cret@logs:6379"}, {}, {})
    assert "s3cret" not in str(caught.value)
    assert "redis needs a stream" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://x", "scheme 'http'; allowed: s3://bucket/prefix, redis://host:port?stream=name"),
        ("s3://B", "s3 needs a bucket"),
        ("s3://bucket?endpoint=host:9000", "endpoint is 'host:9000'"),
        ("redis://logs?stream=a&maxlen=0", "maxlen is '0': a whole number, 1 or more"),
        ("redis:///?stream=a", "redis needs a server"),
        ("unix://?stream=a", "redis needs a server"),
        ("redis://logs?stream=a&colour=red", "redis has no option 'colour': stream, maxlen, db, ssl_"),
        ("redis://logs?stream=a&ssl_ca_certs=/ca.pem", "options that begin with ssl_ need TLS"),
        ("kafka://one:9092", "kafka needs a topic"),
        ("kafka://user@one:9092/t", "kafka needs servers"),
        ("kafka://one:9092/t?acks=1", "kafka has no option 'acks'"),
        ("s3://bucket?name=../x", "name is '../x'"),
        (f"{S3},{S3}", "two sinks are named"),
        ("redis://[x?stream=a", "allowed: s3://"),
    ],
)
def test_what_is_not_allowed_is_named(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match="argument, --sink: sink is") as caught:
        parse({"sink": text}, {}, {})
    assert words in str(caught.value)


@pytest.mark.parametrize("url", ["redis://rules:6379/0", "redis://user:pw@rules/1", "rediss://rules:6379"])
def test_the_redis_of_the_rules_is_no_sink(url: str) -> None:
    with pytest.raises(InvalidArgument, match="is the Redis of redis-url"):
        parse({"redis-url": url, "sink": "redis://rules:6379/5?stream=rows"}, {}, {})
    parse({"redis-url": url, "sink": "redis://rules:6380?stream=rows"}, {}, {})


def test_tls_of_a_redis_sink_goes_to_its_client() -> None:
    (target,) = parse_targets("rediss://logs:6380?stream=a&ssl_ca_certs=/etc/ca.pem&db=2")
    assert target.address == "rediss://logs:6380?db=2&ssl_ca_certs=%2Fetc%2Fca.pem"


@pytest.mark.parametrize(
    ("module", "url", "install"),
    [
        ("botocore", "s3://bucket", "pip install 'model-serving-gateway[s3]'"),
        ("confluent_kafka", "kafka://one:9092/t", "pip install 'model-serving-gateway[kafka]'"),
    ],
)
def test_a_sink_whose_client_is_not_installed_says_how_to_install_it(module: str, url: str, install: str) -> None:
    hidden = f"import sys; sys.modules[{module!r}] = None"
    program = f"{hidden}\nfrom gateway.runtime.config_parser import parse\nparse({{'sink': {url!r}}}, {{}}, {{}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"needs a client that is not installed: {install}" in done.stderr
