"""Feature stores as an operator names them."""

import pytest

from gateway.errors import InvalidArgument
from gateway.features.store_urls import store_urls
from gateway.runtime.config import from_json
from gateway.runtime.config_parser import parse

SHOP = "shop=rediss://reader:s3cret@shop:6380/2?ssl_ca_certs=/ca.pem"
NAMED = "geo=redis+sentinel://a:1,b:2/main?sentinel_password=s3cret"
PLAIN = "unix:///run/features.sock?password=s3cret"


@pytest.mark.parametrize(
    ("options", "environ", "file"),
    [
        ({"feature-store": f"{SHOP}, {NAMED},{PLAIN}"}, {}, {}),
        ({}, {"GATEWAY_FEATURE_STORE": f"{SHOP},{NAMED},{PLAIN}"}, {}),
        ({}, {}, {"feature-store": [SHOP, NAMED, PLAIN]}),
        ({"feature-store": [f"{SHOP},{NAMED}", PLAIN]}, {}, {}),
    ],
)
def test_several_stores_are_one_option_and_reach_the_workers(
    options: dict[str, object], environ: dict[str, str], file: dict[str, object]
) -> None:
    config = from_json(parse(options, environ, file).to_json())
    assert store_urls(config.features.stores) == {
        "shop": SHOP.partition("=")[2],
        "geo": NAMED.partition("=")[2],
        "default": PLAIN,
    }


def test_no_password_is_shown() -> None:
    config = parse({"feature-store": f"{SHOP},{NAMED},{PLAIN}"}, {}, {})
    shown = f"{config!r}{config.dump()}"
    assert "s3cret" not in shown
    assert "shop=rediss://reader:***@shop:6380/2" in shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://x", "feature store 'default': redis url: scheme 'http'"),
        ("redis://a,redis://b", "two feature stores are called 'default'"),
        ("shop=redis+cluster://a:1,b:2", "the rows of a cluster lie on all of its nodes"),
        ("shop=redis://u:s3cret@a:0", "feature store 'shop': redis url"),
        ("shop", "feature store 'default': redis url: scheme ''"),
    ],
)
def test_a_wrong_store_is_named_without_its_secrets(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse({"feature-store": text}, {}, {})
    assert why in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_without_the_option_there_is_no_store() -> None:
    assert store_urls(parse({}, {}, {}).features.stores) == {}
