"""The routes that the scenarios put in force."""

import json

ARMS = {"a": "1", "b": "2"}
KEY = "x-user-id"
_MOVING_KEY = {"from": [f"metadata:{KEY}"], "onMissing": "reject", "salt": "movement"}


def blue_green(model: str, active: str) -> str:
    """All traffic on the arm `active`."""
    return _document(model, {"strategy": {"blueGreen": {"active": active}}})


def ab(model: str, share_of_b: float) -> str:
    """A test by the key in the metadata."""
    weights = {"a": f"{1 - share_of_b:.2%}", "b": f"{share_of_b:.2%}"}
    key = {"from": [f"metadata:{KEY}"], "onMissing": "reject", "salt": "loadtest"}
    return _document(model, {"key": key, "strategy": {"ab": {"control": "a", "weights": weights}}})


def canary(model: str, weight: float) -> str:
    """A share of all requests, each drawn anew."""
    return _document(model, {"strategy": {"canary": {"stable": "a", "canary": "b", "weight": f"{weight:.2%}"}}})


def keyed_ab(model: str, share_of_b: float) -> str:
    """A test by the key, of the same table as `keyed_canary`."""
    weights = {"a": f"{1 - share_of_b:.2%}", "b": f"{share_of_b:.2%}"}
    return _document(model, {"key": _MOVING_KEY, "strategy": {"ab": {"control": "a", "weights": weights}}})


def keyed_canary(model: str, weight: float) -> str:
    """A share of the keys."""
    canary = {"stable": "a", "canary": "b", "weight": f"{weight:.2%}"}
    return _document(model, {"key": _MOVING_KEY, "strategy": {"canary": canary}})


def _document(model: str, spec: dict[str, object]) -> str:
    arms = {arm: {"version": version} for arm, version in ARMS.items()}
    return json.dumps(
        {
            "apiVersion": "gateway/v1",
            "kind": "Route",
            "metadata": {"model": model, "owner": "loadtests"},
            "spec": {"arms": arms, **spec},
        }
    )
