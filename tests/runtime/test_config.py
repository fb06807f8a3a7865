import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from gateway.errors import InvalidArgument
from gateway.runtime.banner import banner
from gateway.runtime.config import from_json
from gateway.runtime.config_parser import load, parse
from gateway.runtime.masking import masked_url
from gateway.runtime.option import Option
from gateway.runtime.option_value import COLLECTOR_URL, MAYBE_PATH, PATH, PATHS, REPOSITORIES, WEBHOOK_URL
from gateway.runtime.options import IGNORED, OPTIONS

GATEWAY = Path(__file__).parents[2] / "gateway"
PROGRAM = "".join(path.read_text("utf-8") for path in GATEWAY.rglob("*.py") if path.name != "sections.py")


def test_argument_beats_environment_beats_file_beats_default() -> None:
    file = {"grpc-port": 1, "metrics_port": 2, "max-connections": 3}
    environ = {"GATEWAY_GRPC_PORT": "11", "GATEWAY_METRICS_PORT": "12"}
    listen = parse({"grpc-port": "21"}, environ, file).listen
    assert (listen.grpc_port, listen.metrics_port, listen.max_connections, listen.host) == (21, 12, 3, "127.0.0.1")


def test_the_ports_that_are_served() -> None:
    assert parse({}, {}, {}).ports == {"grpc-port": 8001, "metrics-port": 8002, "http-port": 8000}
    assert parse({"http-port": "-1"}, {}, {}).ports == {"grpc-port": 8001, "metrics-port": 8002}
    single = parse({"single-port": "true", "http-port": "8001"}, {}, {})
    assert single.ports == {"grpc-port": 8001, "metrics-port": 8002}
    assert "http://127.0.0.1:8001\n" in banner(single, {"grpc": 8001, "metrics": 8002})


def test_an_option_that_triton_has_and_we_do_not_is_taken_with_a_warning() -> None:
    assert parse({"log-verbose": "1"}, {}, {}).warnings == ("argument, --log-verbose: log-level says what is told",)
    environ, file = {"GATEWAY_LOG_VERBOSE": "1"}, {"log_verbose": 1}
    assert [warning.split(":")[0] for warning in parse({}, environ, file).warnings] == [
        "file, log_verbose",
        "environment, GATEWAY_LOG_VERBOSE",
    ]
    assert not set(IGNORED) & {option.name for option in OPTIONS}


def test_an_argument_that_was_not_given_does_not_count() -> None:
    assert parse({"grpc_port": None}, {"GATEWAY_GRPC_PORT": "7"}, {}).listen.grpc_port == 7


@pytest.mark.parametrize(
    ("options", "environ", "file", "words"),
    [
        ({"grpc-port": "99999"}, {}, {}, ("argument", "--grpc-port", "99999", "0 to 65535")),
        ({}, {"GATEWAY_LOG_RATE": "nan"}, {}, ("GATEWAY_LOG_RATE", "nan", "0 to 1")),
        ({}, {}, {"transport": "http"}, ("file", "transport", "http", "ngh2")),
        ({}, {}, {"grace-seconds": 10**400}, ("file", "grace-seconds", "a number from 0 to 3600")),
        ({}, {}, {"workers": True}, ("workers", "true", "whole number")),
        ({}, {}, {"reflection": "maybe"}, ("reflection", "maybe", "true or false")),
        ({"environment": "a{b}"}, {}, {}, ("environment", "a{b}")),
        ({"host": "gateway.example"}, {}, {}, ("host", "gateway.example", "IP address")),
        ({"data-dir": ""}, {}, {}, ("data-dir", "a path")),
        (
            {"model-repository": "ftp://models/all"},
            {},
            {},
            ("model-repository", "ftp://models/all", "only for a path or file://"),
        ),
        (
            {"content-store-bytes": "512MB"},
            {},
            {},
            ("--content-store-bytes", '"512MB"', "0 to 1PiB", "a number or such as 64KiB, 512MiB, 2GiB"),
        ),
        ({}, {"GATEWAY_MAX_MESSAGE_BYTES": "3KiB"}, {}, ("GATEWAY_MAX_MESSAGE_BYTES", '"3KiB"', "4KiB to 2147483647")),
        ({}, {}, {"log-buffer-bytes": "1.5MiB"}, ("log-buffer-bytes", '"1.5MiB"', "64KiB")),
        ({"grpc-prot": 1}, {}, {}, ("grpc-prot", "did you mean 'grpc-port'")),
        ({}, {}, {"modelrepository": "x"}, ("file", "modelrepository", "model-repository")),
        ({"grpc-port": 8002}, {}, {}, ("8002", "must differ")),
        ({"http-port": 8001}, {}, {}, ("http-port 8001", "grpc-port", "must differ")),
        ({"single-port": "true", "transport": "grpcio"}, {}, {}, ("single-port", "ngh2", "grpcio")),
    ],
)
def test_what_is_not_allowed_is_named(
    options: dict[str, object], environ: dict[str, str], file: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse(options, environ, file)
    for word in words:
        assert word in str(raised.value)


BYTES = [option for option in OPTIONS if option.setting.value.kind == "BYTES"]


def test_options_in_bytes_are_those_of_that_name() -> None:
    assert [option for option in OPTIONS if option.name.endswith("-bytes")] == BYTES


@pytest.mark.parametrize("option", BYTES, ids=lambda option: option.name)
def test_bytes_are_given_with_a_unit_or_without(option: Option) -> None:
    for given in ("2MiB", str(2 << 20), " 2048KiB "):
        environ = {option.environment_name: given}
        for config in (
            parse({option.name: given}, {}, {}),
            parse({}, environ, {}),
            parse({}, {}, {option.name: given}),
        ):
            assert getattr(getattr(config, option.section), option.field) == 2 << 20
    assert getattr(getattr(parse({}, {}, {option.name: 2 << 20}), option.section), option.field) == 2 << 20
    assert option.setting.value.read(option.default_text) == option.default


def test_a_reachable_host_needs_insecure_and_is_warned_of() -> None:
    with pytest.raises(InvalidArgument, match="--insecure"):
        parse({"host": "0.0.0.0"}, {}, {})
    warnings = parse({"host": "0.0.0.0", "insecure": True}, {}, {}).warnings
    assert "0.0.0.0" in warnings[0]
    assert parse({"host": "::1"}, {}, {}).warnings == ()


MUTUAL = {"tls-certificate": "c.pem", "tls-key": "k.pem", "tls-client-ca": "ca.pem"}


def test_where_clients_show_certificates_other_hosts_may_connect() -> None:
    config = parse({"host": "0.0.0.0", **MUTUAL}, {}, {})
    assert config.tls.mutual
    assert config.warnings == (
        "metrics-port 8002: everyone who can connect to 0.0.0.0 reads metrics, health and events there, "
        "without TLS and login; --metrics-address 127.0.0.1 keeps it on this host, for a proxy with TLS",
    )
    assert from_json(config.to_json()) == config
    with pytest.raises(InvalidArgument, match="nobody has to say who he is there"):
        parse({"host": "0.0.0.0", "tls-certificate": "c.pem", "tls-key": "k.pem"}, {}, {})
    one_sided = {"host": "0.0.0.0", "tls-certificate": "c.pem", "tls-key": "k.pem", "insecure": True}
    assert parse(one_sided, {}, {}).warnings == (
        "--insecure: everyone who can connect to 0.0.0.0 is an operator; there is no login",
    )


@pytest.mark.parametrize("left", [["tls-key"], ["tls-certificate"], ["tls-client-ca"], ["tls-key", "tls-client-ca"]])
def test_half_an_identity_is_refused(left: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="need each other"):
        parse({name: MUTUAL[name] for name in left}, {}, {})


def test_a_certificate_that_no_client_would_take_is_refused_before_anything_starts(tmp_path: Path) -> None:
    authority = trustme.CA()
    files = {"tls-certificate": tmp_path / "c.pem", "tls-key": tmp_path / "k.pem"}
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        load(files, {})
    leaf = authority.issue_cert("localhost", not_after=datetime(2001, 1, 1, tzinfo=UTC))
    files["tls-certificate"].write_bytes(leaf.cert_chain_pems[0].bytes())
    files["tls-key"].write_bytes(leaf.private_key_pem.bytes())
    with pytest.raises(InvalidArgument, match="expired 2001-01-01T00:00:00Z"):
        load(files, {})
    files["tls-certificate"].write_bytes(authority.issue_cert("localhost").cert_chain_pems[0].bytes())
    with pytest.raises(InvalidArgument, match="key values mismatch"):
        load(files, {})


def test_a_misspelt_environment_variable_is_warned_of_and_a_platforms_own_is_not() -> None:
    environ = {"GATEWAY_GRPC_PROT": "1", "GATEWAY_SERVICE_HOST": "10.0.0.1", "GATEWAY_CONFIG": "", "OTHER": "x"}
    warnings = parse({}, environ, {}).warnings
    assert len(warnings) == 1
    assert "GATEWAY_GRPC_PROT" in warnings[0]


def test_a_secret_in_an_argument_that_comes_several_times_is_masked() -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse({"model-repository": ["models", "s3://key:secret@bucket/x"]}, {}, {})
    assert 'is "models,s3://key:***@bucket/x", allowed: a path, or a URI' in str(refusal.value)


def test_secrets_are_masked_for_people_and_kept_for_children() -> None:
    config = parse({"redis-url": "rediss://me:s3cret@store:6380/2?password=s3cret"}, {}, {})
    assert "s3cret" not in repr(config)
    assert "s3cret" not in str(config.dump())
    assert config.dump()["redis-url"] == "rediss://me:***@store:6380/2?password=***"
    assert from_json(config.to_json()) == config
    with pytest.raises(InvalidArgument) as raised:
        parse({"redis-url": "http://me:s3cret@store"}, {}, {})
    assert "s3cret" not in str(raised.value)


SECRET = "s3cret"
# Wherever an operator may write a password, by intent or by mistake.
HOSTILE = [
    f"redis://u:{SECRET}@h:1/0",
    f"redis://u:{SECRET}@h:1?stream=x",
    f"redis://h:1?stream=x&password={SECRET}",
    f"redis://u:a?{SECRET}@h:1",
    f"redis://u:{SECRET}@@h:1",
    f"rediss+sentinel://u:{SECRET}@a:1/m?sentinel_password={SECRET}",
    f"redis+cluster://u:{SECRET}@a:port",
    f"redis:u:{SECRET}@h",
    f"u:{SECRET}@h:1",
    f"unix:///s?username=u&password={SECRET}",
    f"https://u:{SECRET}@h/x",
    f"https://h/x?token={SECRET}",
    f"kafka://h:1/t?sasl.username=u&sasl.password={SECRET}",
    f"s3://k:{SECRET}@bucket/prefix",
    f"kafka://h:1/t?name=a,redis://u:{SECRET}@h?stream=x",
]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_no_option_shows_what_lets_one_in(option: Option) -> None:
    texts = HOSTILE
    if option.setting.value in (WEBHOOK_URL, COLLECTOR_URL):  # whoever knows its path may write there
        texts = [*HOSTILE, f"https://h/hooks/{SECRET}", f"https://h:x/{SECRET}"]
    elif option.setting.value in (PATH, MAYBE_PATH, PATHS, REPOSITORIES):
        texts = [text for text in HOSTILE if "://" in text]  # the others are paths
    for text in texts:
        try:
            config = parse({option.name: text}, {}, {})
        except InvalidArgument as error:
            shown = str(error)
        else:
            shown = f"{config!r} {config.dump()} {config.warnings} {banner(config, {'grpc': 1, 'metrics': 2})}"
        assert SECRET not in shown, text


@pytest.mark.parametrize("name", ["g.yaml", "g.toml"])
def test_a_file_that_does_not_parse_is_not_quoted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(f'redis-url: "redis://u:{SECRET}@h\nworkers: 1\n')
    with pytest.raises(InvalidArgument, match=r"does not parse.* line") as raised:
        load({"config": str(path)}, {})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("url", ["http://x", "redis://", "redis://h:port", "redis://h:99999", "unix://", 7])
def test_bad_redis_urls_are_refused(url: object) -> None:
    with pytest.raises(InvalidArgument, match="redis-url"):
        parse({"redis-url": url}, {}, {})


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    assert masked_url("redis://h:1/0") == "redis://h:1/0"


@pytest.mark.parametrize(
    ("name", "text"),
    [("g.yaml", "grpc-port: 77\nreflection: true\n"), ("g.toml", "grpc-port = 77\nreflection = true\n")],
)
def test_files_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    by_argument = load({"config": str(tmp_path / name)}, {})
    by_environment = load({}, {"GATEWAY_CONFIG": str(tmp_path / name)})
    assert by_argument == by_environment
    assert by_argument.listen.grpc_port == 77
    assert by_argument.listen.reflection
    assert Path(by_argument.models.repository).is_absolute()
    assert by_argument.process.workers >= 1


def test_several_repositories_are_told_in_every_way() -> None:
    ways = (
        parse({"model-repository": ["a", "file:///b%2Cc"]}, {}, {}),
        parse({}, {"GATEWAY_MODEL_REPOSITORY": "a,file:///b%2Cc"}, {}),
        parse({}, {}, {"model-repository": ["a", "file:///b%2Cc"]}),
    )
    assert {way.models.repository for way in ways} == {"a,file:///b%2Cc"}
    proven = ways[0].models.proven()
    assert proven.repository == f"{Path('a').absolute()},file:///b%2Cc"
    assert proven.missing_repository().startswith(f"'{Path('a').absolute()}' is not a directory")
    for wrong, words in (("a,", "empty path"), ("a,./a", "repository 2 is repository 1 once more"), ([], "a path or")):
        with pytest.raises(InvalidArgument, match=words):
            parse({}, {}, {"model-repository": wrong})


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_files_that_are_no_options_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=r"g\.yaml"):
        load({"config": path}, {})
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load({"config": tmp_path / "absent.yaml"}, {})


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_options_default_is_allowed_and_is_that_of_its_section(option: Option) -> None:
    value = getattr(getattr(parse({}, {}, {}, cpus=0), option.section), option.field)
    assert value == (1 if option.name == "workers" else option.default)
    assert option.setting.value.read(option.default) == option.default
    assert option.help.endswith(".")
    kind = option.setting.value.kind
    assert kind or isinstance(option.default, bool)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_somebody_reads_the_value_of_an_option(option: Option) -> None:
    """An option that nobody reads is taken, checked and documented, and does nothing."""
    assert re.search(rf"\.{option.field}\b", PROGRAM), option.field


def test_socket_names_stay_within_the_kernels_limit(tmp_path: Path) -> None:
    short = parse({"data-dir": "/d"}, {}, {})
    assert short.socket_dir == short.run_dir
    long = parse({"data-dir": str(tmp_path / ("x" * 120))}, {}, {})
    assert len(str(long.socket_dir / "worker-255.sock.4194304")) < 108
    assert long.socket_dir != parse({"data-dir": str(tmp_path / ("y" * 120))}, {}, {}).socket_dir


def test_the_keys_of_a_required_signature_are_read_at_the_start(tmp_path: Path) -> None:
    keys = tmp_path / "keys.pem"
    with pytest.raises(
        InvalidArgument, match=r"require-signature '.*keys\.pem': the file of trusted keys cannot be read"
    ):
        load({"require-signature": str(keys)}, {})
    keys.write_text("no key")
    with pytest.raises(InvalidArgument, match="must hold public keys"):
        load({"require-signature": str(keys)}, {})
