"""Signatures of versions: bundles of OpenSSF Model Signing that were made with a key pair.

    model_signing sign key <repository>/<model>/<version> --private_key KEY.pem --signature <...>/<version>/model.sig

The bundle `model.sig` lies in the version's directory. It is checked against the verified copy: every file that can be
loaded must be listed with its SHA-256, and every listed file must be there.

Source: https://github.com/ossf/model-signing-spec; DSSE v1.0.2 for what is signed.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from loaders import manifest
from loaders.errors import SignatureRefused
from loaders.loader import LocalVersion

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

FILENAME: Final = "model.sig"
INSTALL: Final = "pip install 'model-serving-gateway[signing]'"
_MAX_BYTES: Final = 8 << 20
_PAYLOAD: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_END: Final = b"-----END PUBLIC KEY-----"
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")


class _Signature(msgspec.Struct):
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Signature]


class _Bundle(msgspec.Struct, rename="camel"):
    dsse_envelope: _Envelope
    verification_material: dict[str, msgspec.Raw]


class _Resource(msgspec.Struct):
    name: str
    digest: str
    algorithm: str


class _Serialization(msgspec.Struct):
    method: str


class _Predicate(msgspec.Struct):
    serialization: _Serialization
    resources: list[_Resource]


class _Statement(msgspec.Struct, rename="camel"):
    predicate_type: str
    predicate: _Predicate
    type: str = msgspec.field(name="_type")


class TrustedKeys:
    """The public keys of which one must have signed a version: a PEM file, read anew for each check."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple["ec.EllipticCurvePublicKey", ...]:
        """Returns the keys of the file. Raises: SignatureRefused naming what is wrong with it."""
        from cryptography.exceptions import UnsupportedAlgorithm  # an extra, used by few
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            blocks = [block + _END for block in self._path.read_bytes().split(_END)[:-1]]
            keys = [load_pem_public_key(block.lstrip()) for block in blocks]
        except OSError as error:
            raise SignatureRefused(f"the file of trusted keys cannot be read: {error.strerror}") from None
        except (ValueError, UnsupportedAlgorithm):
            raise SignatureRefused("the file of trusted keys holds a key that cannot be read") from None
        trusted = tuple(key for key in keys if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES)
        if not trusted or len(trusted) < len(keys):
            raise SignatureRefused(
                "the file of trusted keys must hold public keys (PEM) of the curves P-256, P-384 or P-521 only"
            )
        return trusted

    def check(self, local: LocalVersion) -> None:
        """Checks that one of the keys signed exactly the files of this copy.

        Raises: SignatureRefused, whose text is the reason.
        """
        keys = self.read()
        if all(entry.name != FILENAME for entry in local.files):
            raise SignatureRefused(
                f"the version is not signed, and a signature is required: there is no {FILENAME} in its directory "
                f"(model_signing sign key)"
            )
        payload = _signed_payload(_bundle(local), keys)
        _compare(_listed(payload), {entry.name: entry.sha256 for entry in local.files if entry.name != FILENAME})


def _bundle(local: LocalVersion) -> _Bundle:
    size = next(entry.size for entry in local.files if entry.name == FILENAME)
    if size > _MAX_BYTES:
        raise SignatureRefused(f"{FILENAME} has {size} bytes; at most {_MAX_BYTES}")
    try:
        bundle = msgspec.json.decode((local.path / FILENAME).read_bytes(), type=_Bundle)
    except OSError as error:
        raise SignatureRefused(f"{FILENAME} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureRefused(f"{FILENAME} is no bundle of OpenSSF Model Signing: {str(error)[:200]}") from None
    material = bundle.verification_material.keys() & {"certificate", "x509CertificateChain"}
    if material:
        raise SignatureRefused(
            f"{FILENAME} was made with a certificate; only signatures of key pairs are checked (model_signing sign key)"
        )
    return bundle


def _signed_payload(bundle: _Bundle, keys: tuple["ec.EllipticCurvePublicKey", ...]) -> bytes:
    """Returns the payload, which one of the keys has signed. Raises: SignatureRefused."""
    envelope = bundle.dsse_envelope
    if envelope.payload_type != _PAYLOAD:
        raise SignatureRefused(f"{FILENAME} has a payload of type {envelope.payload_type[:80]!a}, not {_PAYLOAD!r}")
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(signature.sig, validate=True) for signature in envelope.signatures[:16]]
    except (binascii.Error, ValueError):
        raise SignatureRefused(f"{FILENAME} holds no valid base64") from None
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    if any(_has_signed(key, signature, signed) for key in keys for signature in signatures):
        return payload
    raise SignatureRefused(f"{FILENAME} was not made with any of the trusted keys, or was changed afterwards")


def _has_signed(key: "ec.EllipticCurvePublicKey", signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(signature, signed, ec.ECDSA(_hash_of(key)))
    except InvalidSignature:
        return False
    return True


def _hash_of(key: "ec.EllipticCurvePublicKey") -> "HashAlgorithm":
    from cryptography.hazmat.primitives import hashes

    by_size: Mapping[int, HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    return by_size[key.curve.key_size]


def _listed(payload: bytes) -> dict[str, str]:
    """Returns SHA-256 by file name, from a signed statement. Raises: SignatureRefused."""
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureRefused(f"{FILENAME} signs no statement about a model: {str(error)[:200]}") from None
    if (statement.type, statement.predicate_type) != (_STATEMENT, _PREDICATE):
        raise SignatureRefused(f"{FILENAME} signs a statement of type {statement.predicate_type[:80]!a}")
    resources = statement.predicate.resources
    if statement.predicate.serialization.method != "files" or any(one.algorithm != "sha256" for one in resources):
        raise SignatureRefused(f"{FILENAME} must list whole files by SHA-256, which is what model_signing does unasked")
    listed = {one.name: one.digest.lower() for one in resources}
    if len(listed) != len(resources):
        raise SignatureRefused(f"{FILENAME} lists a file twice")
    return listed


def _compare(listed: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Checks that exactly the listed files are there; what is no content of a version may be listed, too."""
    for name in sorted(listed.keys() | actual.keys()):
        if name not in listed:
            raise SignatureRefused(f"{name!r} is not covered by the signature")
        if name not in actual:
            hidden = any(part.startswith(".") for part in name.split("/"))
            if not hidden and name != manifest.FILENAME:
                raise SignatureRefused(f"the signature lists {name[:200]!a}, which is not there")
        elif listed[name] != actual[name]:
            raise SignatureRefused(f"{name!r} is not the file that was signed")
