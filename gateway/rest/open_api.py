"""The OpenAPI document of the operators' paths, made of their table and of the messages' descriptors.

Source: OpenAPI 3.1; JSON Schema 2020-12. `message_json` says how messages are written.
"""

from collections.abc import Sequence
from typing import Any, Final

from gateway.access.permissions import RPCS
from gateway.access.principal import or_words
from gateway.rest.control_paths import ControlPath
from gateway.rest.http_refusal import CODE_FIELD
from gateway.rest.message_json import holds_json, is_map, shown_name

EVENTS_TYPE: Final = "text/event-stream"
WRITES: Final = "x-gateway-client"  # a write has to have it, which no form of another site can send
_INTEGERS: Final = {"CPPTYPE_INT32": 32, "CPPTYPE_INT64": 64, "CPPTYPE_UINT32": 32, "CPPTYPE_UINT64": 64}
_REFUSALS: Final = {
    "400": "The request does not fit, or not in the present state.",
    "401": "No credential, or none that is known.",
    "403": "The role is missing, or the request comes from another site.",
    "404": "No such model, version, revision or draft.",
    "409": "The route was changed since it was read.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "429": "A limit is reached; Retry-After says when to come again.",
    "500": "A defect of the gateway; its log has the cause.",
    "501": "Not served.",
    "503": "The store or the worker is away; try again.",
    "504": "No answer in time.",
}


def open_api(paths: Sequence[ControlPath], *, version: str) -> dict[str, Any]:
    """Returns the document."""
    schemas: dict[str, Any] = {
        "Error": {
            "type": "object",
            "properties": {"error": {"type": "string"}},
            "required": ["error"],
        }
    }
    described: dict[str, Any] = {}
    for row in paths:
        described.setdefault(row.path, {})[row.method.lower()] = _operation(row, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Operators of the model serving gateway",
            "version": version,
            "description": "The methods of gateway.v1.Control (protos/control.proto, docs/operating.md) over HTTP.",
        },
        "security": [{}, {"bearer": []}],
        "paths": described,
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(row: ControlPath, schemas: dict[str, Any]) -> dict[str, Any]:
    roles = or_words(RPCS[row.permission].roles)
    of_input = row.input.fields_by_name
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(of_input[name])} for name in row.names
    ]
    answer: dict[str, Any] = _reference(row.output, schemas, whole=True)
    if row.collects:
        answer = {"type": "object", "properties": {row.collects: {"type": "array", "items": answer}}}
    operation: dict[str, Any] = {
        "operationId": row.rpc,
        "description": f"`{row.permission}`; needs the role {roles}." if roles else f"`{row.permission}`.",
        "responses": {"200": _followed(answer) if row.follows else _content("The answer.", answer)},
    }
    if row.method == "GET":
        parameters += [
            {"name": field.name, "in": "query", "schema": _schema(field, schemas, whole=False)} for field in row.fields
        ]
    else:
        parameters.append(
            {
                "name": WRITES,
                "in": "header",
                "required": True,
                "description": "Any name of the caller; keeps forms of other sites out.",
                "schema": {"type": "string", "minLength": 1, "pattern": "^[!-~]+$"},
            }
        )
        body = _object(row.fields, schemas, whole=False)
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    operation["parameters"] = parameters
    error = {"$ref": "#/components/schemas/Error"}
    told = {CODE_FIELD.decode(): {"description": "The code of the error.", "schema": {"type": "string"}}}
    operation["responses"] |= {status: _content(text, error) | {"headers": told} for status, text in _REFUSALS.items()}
    return operation


def _content(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _followed(schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.1 has no words for the items of a stream: the schema is that of each event's data."""
    text = "Server-sent events, for as long as they are read; the `data` of each is JSON of the schema `x-event-data`."
    return {
        "description": text,
        "content": {EVENTS_TYPE: {"schema": {"type": "string"}, "x-event-data": schema}},
    }


def _path_schema(field: Any) -> dict[str, Any]:
    if field.cpp_type == field.CPPTYPE_STRING:
        return {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}
    return _scalar_schema(field)


def _reference(message: Any, schemas: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """Returns a reference to the message's schema; `whole`: as it is answered, every field of it."""
    name = message.full_name.removeprefix(f"{message.file.package}.") + ("" if whole else "Input")
    if name not in schemas:
        schemas[name] = {}  # a message may hold itself
        schemas[name] = _object(message.fields, schemas, whole=whole)
    return {"$ref": f"#/components/schemas/{name}"}


def _object(fields: Sequence[Any], schemas: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": "object",
        "properties": {shown_name(field): _schema(field, schemas, whole=whole) for field in fields},
        "additionalProperties": False,
    }
    if whole and (always := [shown_name(field) for field in fields if not field.has_presence]):
        described["required"] = always
    return described


def _schema(field: Any, schemas: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    if holds_json(field):
        return {} if whole else {"type": ["object", "null"]}
    if is_map(field):
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _one(value, schemas, whole=whole)}
    one = _one(field, schemas, whole=whole)
    return {"type": "array", "items": one} if field.is_repeated else one


def _one(field: Any, schemas: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type, schemas, whole=whole)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    schema = _scalar_schema(field)
    if whole and schema["type"] == "number":
        schema["type"] = ["number", "null"]  # JSON has no infinity
    return schema


def _scalar_schema(field: Any) -> dict[str, Any]:
    kinds = {getattr(field, name): bits for name, bits in _INTEGERS.items()}
    bits = kinds.get(field.cpp_type)
    if bits is not None:
        unsigned = field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64)
        low, high = (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        return {"type": "integer", "minimum": low, "maximum": high}
    if field.cpp_type == field.CPPTYPE_BOOL:
        return {"type": "boolean"}
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return {"type": "number"}
    return {"type": "string"}
