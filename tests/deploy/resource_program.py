"""Prints what is wrong with custom resources (JSON on standard input) by the models that others publish for them.

It runs by itself, with packages that `make test` installs apart: python -m tests.deploy.resource_program
"""

import json
import sys
from pathlib import Path
from typing import Any

for folder in ("resources", "kserve"):
    sys.path.append(str(Path(sys.prefix) / folder))

from cloudcoil.models.keda.v1alpha1 import ScaledObject  # noqa: E402
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor  # noqa: E402
from kserve import models as kserve_models  # noqa: E402
from kubernetes.client import models as kubernetes_models  # noqa: E402

_MODELS: dict[str, Any] = {"ScaledObject": ScaledObject, "ServiceMonitor": ServiceMonitor}


def main() -> None:
    faults: list[str] = []
    for document in json.load(sys.stdin):
        kind = document["kind"]
        if kind in _MODELS:
            taken = _MODELS[kind].model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")
            faults += (
                [] if taken == document else [f"{kind}: fields that are not known: {document} is taken as {taken}"]
            )
        else:
            faults += _generated(document, f"V1alpha1{kind}", kind)
    json.dump(faults, sys.stdout)


def _generated(value: Any, type_name: str, where: str) -> list[str]:
    """What speaks against the value as one of a class that OpenAPI Generator made."""
    if type_name.startswith("list["):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        inner = type_name[5:-1]
        return [fault for index, one in enumerate(value) for fault in _generated(one, inner, f"{where}[{index}]")]
    if type_name.startswith("dict("):
        return [] if isinstance(value, dict) else [f"{where} is no mapping"]
    plain = {"str": str, "int": int, "bool": bool, "float": float}.get(type_name)
    if plain is not None:
        return [] if isinstance(value, plain) else [f"{where} is {value!r}, not {type_name}"]
    model = getattr(kserve_models, type_name, None) or getattr(kubernetes_models, type_name, None)
    if model is None:  # K8sIoApi..., int-or-string and the like
        return []
    if not isinstance(value, dict):
        return [f"{where} is no {type_name}"]
    attribute_of = {key: attribute for attribute, key in model.attribute_map.items()}
    faults = []
    for key, one in value.items():
        if key not in attribute_of:
            faults.append(f"{where}.{key}: {type_name} has no such field")
        else:
            faults += _generated(one, model.openapi_types[attribute_of[key]], f"{where}.{key}")
    return faults


if __name__ == "__main__":
    main()
