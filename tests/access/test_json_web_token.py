"""Which JWTs are taken, and that every forgery is refused."""

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.access.json_web_token import LEEWAY_S, SigningKeys, UnknownKey, parse_keys, verify
from gateway.errors import InvalidArgument, Unauthenticated
from tests.access.issuer import EXPECTED, NOW_S, Issuer


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    made = Issuer()
    for key_id, algorithm in (("ec", "ES256"), ("ed", "EdDSA"), ("rsa", "RS256"), ("pss", "PS256")):
        made.add(key_id, algorithm)
    return made


@pytest.fixture(scope="module")
def keys(issuer: Issuer) -> SigningKeys:
    return parse_keys(issuer.document())


def refused(token: str, keys: SigningKeys, now_s: float = NOW_S) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verify(token, keys, EXPECTED, now_s)
    assert token not in str(caught.value)
    return str(caught.value)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("key_id", ["ec", "ed", "rsa", "pss"])
def test_what_the_issuer_signed_is_taken(issuer: Issuer, keys: SigningKeys, key_id: str) -> None:
    assert verify(issuer.sign(key_id, tenant="acme"), keys, EXPECTED, NOW_S)["tenant"] == "acme"


def test_a_list_of_audiences_has_to_name_this_gateway(issuer: Issuer, keys: SigningKeys) -> None:
    assert verify(issuer.sign("ec", aud=["x", EXPECTED.audience]), keys, EXPECTED, NOW_S)["sub"] == "alice"
    assert "another audience" in refused(issuer.sign("ec", aud=["x", "y"]), keys)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "no claim 'aud'"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "no claim 'iss'"),
        ({"exp": None}, "no claim 'exp'"),
        ({"exp": "soon"}, ""),
        ({"exp": NOW_S - LEEWAY_S}, "has expired"),
        ({"nbf": NOW_S + LEEWAY_S + 1}, "not valid yet"),
        ({"nbf": "later"}, ""),
        ({"exp": float("nan")}, "no numbers"),
        ({"exp": float("inf")}, "no numbers"),
        ({"exp": 10**400}, "no numbers"),
    ],
    ids=str,
)
def test_a_claim_that_does_not_fit(issuer: Issuer, keys: SigningKeys, changed: dict[str, Any], said: str) -> None:
    assert said in refused(issuer.sign("ec", **changed), keys)


def test_clocks_may_differ_a_little(issuer: Issuer, keys: SigningKeys) -> None:
    token = issuer.sign("ec", exp=NOW_S - LEEWAY_S + 1, nbf=NOW_S + LEEWAY_S - 1)
    assert verify(token, keys, EXPECTED, NOW_S)["sub"] == "alice"


def test_no_signature_is_none(issuer: Issuer, keys: SigningKeys) -> None:
    claims = part(issuer.claims())
    for algorithm in ("none", "None", "NONE", "nOnE"):
        refused(f"{part({'alg': algorithm, 'kid': 'ec'})}.{claims}.", keys)
    refused(jwt.encode(issuer.claims(), "", algorithm="none", headers={"kid": "ec"}), keys)


def test_a_public_key_is_no_secret_to_sign_with(issuer: Issuer, keys: SigningKeys) -> None:
    public = issuer.keys["rsa"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(issuer.claims())}"
    signature = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), "sha256")).rstrip(b"=").decode()
    refused(f"{signed}.{signature}", keys)


def test_the_signature_of_another_key_of_the_issuer_does_not_count(issuer: Issuer, keys: SigningKeys) -> None:
    refused(issuer.sign("ec", headers={"kid": "rsa"}), keys)


def test_the_key_in_the_token_is_not_asked(issuer: Issuer, keys: SigningKeys) -> None:
    evil = Issuer()
    evil.add("ec")
    own = json.loads(evil.document())["keys"][0]
    refused(evil.sign("ec", headers={"jwk": own, "jku": "https://evil.example/keys"}), keys)


def test_every_flip_of_a_bit_is_noticed(issuer: Issuer, keys: SigningKeys) -> None:
    token = issuer.sign("ec")
    for at in range(len(token) - 4):  # the last character of a part may hold unused bits
        if token[at] != "." and (at + 1 == len(token) or token[at + 1] != "."):
            refused(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :], keys)


def test_a_token_has_one_form(issuer: Issuer, keys: SigningKeys) -> None:
    token = issuer.sign("rsa")
    for other in (f"{token}==", f"{token}\n", f"{token[:-9]}*{token[-9:]}", token.replace(".", ".\t", 1)):
        assert "base64url" in refused(other, keys)


def test_what_a_token_says_must_be_understood_is_refused(issuer: Issuer, keys: SigningKeys) -> None:
    for critical in (["exp"], ["tenant"], [], "exp", None):
        refused(issuer.sign("ec", headers={"crit": critical, "exp": NOW_S + 600}), keys)


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "..", "a.b.c.d", "é", "x" * 8000, "e30.e30.e30"])
def test_text_that_is_no_token(keys: SigningKeys, token: str) -> None:
    with pytest.raises(Unauthenticated):
        verify(token, keys, EXPECTED, NOW_S)


def test_a_key_that_is_not_known_is_told_apart(issuer: Issuer, keys: SigningKeys) -> None:
    other = Issuer()
    other.add("next")
    with pytest.raises(UnknownKey):
        verify(other.sign("next"), keys, EXPECTED, NOW_S)
    with pytest.raises(UnknownKey):
        verify(issuer.sign("ec", headers={"kid": ""}), keys, EXPECTED, NOW_S)


def test_keys_that_share_an_id_or_have_none_are_all_tried() -> None:
    made = Issuer()
    for name, algorithm in (("old", "ES256"), ("new", "ES256"), ("rsa", "RS256")):
        made.add(name, algorithm)
    published = json.loads(made.document())["keys"]
    for shared in ({"kid": "same"}, {}):
        document = {"keys": [{name: v for name, v in one.items() if name != "kid"} | shared for one in published]}
        keys = parse_keys(json.dumps(document))
        assert len(keys) == 3
        for name in made.published:
            token = jwt.encode(made.claims(), made.keys[name], algorithm=made.algorithms[name], headers=shared)
            assert verify(token, keys, EXPECTED, NOW_S)["sub"] == "alice"
        evil = Issuer()
        evil.add("new")
        refused(jwt.encode(evil.claims(), evil.keys["new"], algorithm="ES256", headers=shared), keys)


def test_of_too_many_keys_of_one_id_the_first_and_the_last_are_tried_and_the_rest_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = Issuer()
    for number in range(9):
        made.add(str(number))
    published = json.loads(made.document())["keys"]
    for shared, named in (({"kid": "same"}, "the id 'same'"), ({}, "no id")):
        document = {"keys": [{name: v for name, v in one.items() if name != "kid"} | shared for one in published]}
        caplog.clear()
        keys = parse_keys(json.dumps(document))
        assert f"9 keys have {named}: the first 4 and the last 4 are tried" in caplog.text
        assert len(keys) == 8
        for newest in ("0", "8"):  # an issuer adds before or behind
            token = jwt.encode(made.claims(), made.keys[newest], algorithm="ES256", headers=shared)
            assert verify(token, keys, EXPECTED, NOW_S)["sub"] == "alice"


def test_a_key_that_names_no_algorithm_verifies_those_of_its_kind(issuer: Issuer) -> None:
    published = [{k: v for k, v in one.items() if k != "alg"} for one in json.loads(issuer.document())["keys"]]
    keys = parse_keys(json.dumps({"keys": published}))
    for algorithm in ("RS256", "RS512", "PS256"):
        token = jwt.encode(issuer.claims(), issuer.keys["rsa"], algorithm=algorithm, headers={"kid": "rsa"})
        assert verify(token, keys, EXPECTED, NOW_S)["sub"] == "alice"
        with pytest.raises(Unauthenticated):  # one that names another is for that alone
            verify(token, parse_keys(issuer.document().replace("RS256", "RS384")), EXPECTED, NOW_S)
    assert verify(issuer.sign("ec"), keys, EXPECTED, NOW_S)["sub"] == "alice"
    test_a_public_key_is_no_secret_to_sign_with(issuer, keys)


def test_the_only_key_verifies_a_token_that_names_none() -> None:
    alone = Issuer()
    alone.add("only")
    token = jwt.encode(alone.claims(), alone.keys["only"], algorithm="ES256")
    assert verify(token, parse_keys(alone.document()), EXPECTED, NOW_S)["sub"] == "alice"


def test_keys_that_verify_nothing_are_passed_over(issuer: Issuer) -> None:
    listed = json.loads(issuer.document())["keys"]
    shared = {"kty": "oct", "k": "c2VjcmV0", "kid": "shared", "alg": "HS256"}
    enciphering = {**listed[0], "use": "enc", "kid": "enc"}
    keys = parse_keys(json.dumps({"keys": [shared, enciphering, {"kty": "what"}, 7, *listed]}))
    assert len(keys) == 4
    for document in ("", "[]", "{}", '{"keys": {}}', json.dumps({"keys": [shared]}), "{" * 9999):
        with pytest.raises(InvalidArgument):
            parse_keys(document)


def test_a_private_key_or_a_short_one_is_not_taken(issuer: Issuer) -> None:
    short = Issuer()
    short.add("short", "RS256", bits=1024)
    with pytest.raises(InvalidArgument, match="RSA with 2048 bits"):
        parse_keys(short.document())
    private = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(issuer.keys["ec"]))
    with pytest.raises(InvalidArgument):
        parse_keys(json.dumps({"keys": [private]}))
