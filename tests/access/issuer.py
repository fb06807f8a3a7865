"""An issuer of JWTs: key pairs, tokens, and its JWKS document."""

import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.access.json_web_token import ExpectedClaims

EXPECTED = ExpectedClaims("https://issuer.example", "gateway")
NOW_S = 1_790_000_000


class Clock:
    """Both clocks, at the time of the issuer's tokens; a test moves them on."""

    now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


class Issuer:
    """Signs with the key of an id; `published` are those in its document."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.algorithms: dict[str, str] = {}
        self.published: list[str] = []

    def add(self, key_id: str, algorithm: str = "ES256", *, bits: int = 2048) -> None:
        if algorithm.startswith("ES"):
            self.keys[key_id] = ec.generate_private_key(ec.SECP256R1())
        elif algorithm == "EdDSA":
            self.keys[key_id] = ed25519.Ed25519PrivateKey.generate()
        else:
            self.keys[key_id] = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        self.algorithms[key_id] = algorithm
        self.published.append(key_id)

    def document(self) -> str:
        return json.dumps({"keys": [self._public(key_id) for key_id in self.published]})

    def _public(self, key_id: str) -> dict[str, object]:
        algorithm = jwt.get_algorithm_by_name(self.algorithms[key_id])
        described: Any = algorithm.to_jwk(self.keys[key_id].public_key())
        public = json.loads(described) if isinstance(described, str) else described
        return {**public, "kid": key_id, "alg": self.algorithms[key_id], "use": "sig"}

    def claims(self, **changed: Any) -> dict[str, object]:
        claims: Mapping[str, object] = {
            "iss": EXPECTED.issuer,
            "aud": EXPECTED.audience,
            "sub": "alice",
            "exp": NOW_S + 600,
        }
        return {name: value for name, value in {**claims, **changed}.items() if value is not None}

    def sign(self, key_id: str, *, headers: Mapping[str, object] | None = None, **changed: Any) -> str:
        return jwt.encode(
            self.claims(**changed),
            self.keys[key_id],
            algorithm=self.algorithms[key_id],
            headers={"kid": key_id, **(headers or {})},
        )
