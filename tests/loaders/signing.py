"""Signatures as `model_signing sign key` makes them (1.1.1), for tests that need one of their own."""

import base64
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def statement(files: Mapping[str, bytes], *, method: str = "files", algorithm: str = "sha256") -> dict[str, Any]:
    """What is signed of these files."""
    digests = {name: sha256(content) for name, content in sorted(files.items())}
    root = sha256(b"".join(digest.digest() for digest in digests.values())).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": method, "hash_type": "sha256", "allow_symlinks": False},
            "resources": [
                {"algorithm": algorithm, "digest": digest.hexdigest(), "name": name} for name, digest in digests.items()
            ],
        },
    }


def bundle(signed: object, key: ec.EllipticCurvePrivateKey, payload_type: str = PAYLOAD_TYPE) -> dict[str, Any]:
    """A bundle with the signature of a statement."""
    payload = json.dumps(signed).encode()
    encoded = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
    signature = key.sign(encoded, ec.ECDSA(hashes.SHA256()))
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }


def sign(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Signs the files of a version's directory."""
    files = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    (directory / "model.sig").write_text(json.dumps(bundle(statement(files), key)))


def public_pem(*keys: ec.EllipticCurvePrivateKey) -> bytes:
    """The public keys, as a file of trusted keys holds them."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return b"".join(key.public_key().public_bytes(serialization.Encoding.PEM, form) for key in keys)
