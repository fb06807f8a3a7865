"""Signatures of versions: what model_signing makes is taken, and nothing else is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loaders.errors import SignatureRefused
from loaders.filesystem import FilesystemLoader
from loaders.loader import LocalVersion
from loaders.model_signature import TrustedKeys
from loaders.store import ContentStore
from tests.loaders import signing

REAL = Path(__file__).with_name("signatures")  # made by model_signing 1.1.1 of the files below
FILES = {"model.onnx": b"hello\n", "w/a.bin": b"x\n"}
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
Bundle = dict[str, Any]


@pytest.fixture
def version(tmp_path: Path) -> Path:
    directory = tmp_path / "repository" / "m" / "1"
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def keys(tmp_path: Path) -> TrustedKeys:
    (tmp_path / "keys.pem").write_bytes(signing.public_pem(OTHER, KEY))
    return TrustedKeys(tmp_path / "keys.pem")


def fetched(version: Path) -> LocalVersion:
    store = ContentStore(version.parent.parent.parent / "store")
    return FilesystemLoader(version.parent.parent, store).fetch("m", "1")


def signed(version: Path, bundle: object) -> LocalVersion:
    (version / "model.sig").write_text(json.dumps(bundle))
    return fetched(version)


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_what_model_signing_signed_is_taken(curve: str, version: Path, keys: TrustedKeys) -> None:
    (version / "model.sig").write_bytes((REAL / f"{curve}.sig").read_bytes())
    TrustedKeys(REAL / f"{curve}.pem").check(fetched(version))
    with pytest.raises(SignatureRefused, match="not made with any of the trusted keys"):
        keys.check(fetched(version))


def test_what_was_signed_as_model_signing_does_is_taken(version: Path, keys: TrustedKeys) -> None:
    signing.sign(version, KEY)
    (version / ".gitignore").write_text("")  # no content
    keys.check(fetched(version))


def test_a_version_without_a_signature_is_refused(version: Path, keys: TrustedKeys) -> None:
    with pytest.raises(SignatureRefused, match=r"not signed.*no model\.sig"):
        keys.check(fetched(version))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda path: (path / "model.onnx").write_bytes(b"Hello\n"), r"'model\.onnx' is not the file that was"),
    "added": (lambda path: (path / "more.bin").write_bytes(b""), r"'more\.bin' is not covered"),
    "removed": (lambda path: (path / "w/a.bin").unlink(), r"lists 'w/a\.bin', which is not there"),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_other_files_than_those_signed_are_refused(
    change: Callable[[Path], object], reason: str, version: Path, keys: TrustedKeys
) -> None:
    signing.sign(version, KEY)
    change(version)
    with pytest.raises(SignatureRefused, match=reason):
        keys.check(fetched(version))


def _with(path: str, value: object) -> Callable[[Bundle], Bundle]:
    def edited(bundle: Bundle) -> Bundle:
        copy: Bundle = json.loads(json.dumps(bundle))
        *above, last = path.split(".")
        place = copy
        for name in above:
            place = place[name]
        place[last] = value
        return copy

    return edited


STATEMENT = signing.statement(FILES)
BAD: dict[str, tuple[Bundle | list[Any], str]] = {
    "another key": (signing.bundle(STATEMENT, ec.generate_private_key(ec.SECP256R1())), "any of the trusted keys"),
    "no signature": (_with("dsseEnvelope.signatures", [])(signing.bundle(STATEMENT, KEY)), "any of the trusted keys"),
    "bad base64": (_with("dsseEnvelope.payload", "%%%")(signing.bundle(STATEMENT, KEY)), "no valid base64"),
    "payload exchanged": (
        _with("dsseEnvelope.payload", signing.bundle([1], KEY)["dsseEnvelope"]["payload"])(
            signing.bundle(STATEMENT, KEY)
        ),
        "any of the trusted keys",
    ),
    "payload type": (signing.bundle(STATEMENT, KEY, "text/plain"), "payload of type 'text/plain'"),
    "certificate": (
        _with("verificationMaterial", {"certificate": {"rawBytes": "AA=="}})(signing.bundle(STATEMENT, KEY)),
        "made with a certificate",
    ),
    "no bundle": ([], "no bundle of OpenSSF"),
    "no statement": (signing.bundle({}, KEY), "no statement about a model"),
    "other statement": (signing.bundle(STATEMENT | {"predicateType": "x"}, KEY), "statement of type 'x'"),
    "shards": (signing.bundle(signing.statement(FILES, method="shards"), KEY), "whole files by SHA-256"),
    "blake2": (signing.bundle(signing.statement(FILES, algorithm="blake2"), KEY), "whole files by SHA-256"),
}


@pytest.mark.parametrize(("bundle", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_bundle_is_refused(bundle: object, reason: str, version: Path, keys: TrustedKeys) -> None:
    with pytest.raises(SignatureRefused, match=reason):
        keys.check(signed(version, bundle))


def test_keys_that_cannot_be_used_are_refused_and_new_ones_hold_at_once(
    version: Path, keys: TrustedKeys, tmp_path: Path
) -> None:
    signing.sign(version, KEY)
    local = fetched(version)
    file = tmp_path / "keys.pem"
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    ed = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*form)
    weak = signing.public_pem(ec.generate_private_key(ec.SECP256K1()))
    for content in (
        b"",
        b"no key",
        ed,
        weak,
        signing.public_pem(KEY) + ed,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ):
        file.write_bytes(content)
        with pytest.raises(SignatureRefused, match="file of trusted keys"):
            keys.check(local)
    file.unlink()
    with pytest.raises(SignatureRefused, match="cannot be read: No such file"):
        keys.check(local)
    file.write_bytes(signing.public_pem(KEY))
    keys.check(local)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), byte=st.integers(0, 255))
@example(position=0, byte=0)
def test_any_damage_of_a_bundle_is_refused_or_harmless(
    position: int, byte: int, version: Path, keys: TrustedKeys
) -> None:
    content = bytearray(json.dumps(signing.bundle(STATEMENT, KEY)).encode())
    content[position % len(content)] = byte
    (version / "model.sig").write_bytes(bytes(content))
    try:
        keys.check(fetched(version))
    except SignatureRefused:
        return
    # Only what is not signed may differ: media type, key hint, key id.
    assert signing.bundle(STATEMENT, KEY)["dsseEnvelope"]["payload"].encode() in content
