"""The pieces that the API's JSON schemas are put together from.

A bound that is a setting stands there as a function, which is asked each time that a schema is made (`plain`).
"""

import json
from typing import Any

from llmjobs.states import Priority

Json = dict[str, Any]


def plain(schema: Json) -> Json:
    """As JSON has it: YAML can't write enums or functions, and would write what is shared as references."""
    made: Json = json.loads(json.dumps(schema, default=lambda bound: bound()))
    return made


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(properties: Json, *, required: list[str] | None = None, **more: Any) -> Json:
    """An object of exactly these properties; all are required where `required` does not say."""
    names = list(properties) if required is None else required
    return {
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
        **more,
    }


def nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(name: str) -> Json:
    return {"type": "array", "items": ref(name)}


TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
SECONDS: Json = {"type": "number", "minimum": 0}
DOLLARS: Json = {"type": "number", "minimum": 0}
TIME: Json = {"type": "string", "format": "date-time"}
MOMENT_MS: Json = {"type": "integer", "minimum": 0, "maximum": 253_402_300_799_999}  # to the year 9999
MOMENT: Json = {"anyOf": [TIME, MOMENT_MS, {"const": ""}]}
SEQ: Json = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
COUNTS: Json = {"type": "object", "additionalProperties": COUNT}
METADATA: Json = {"type": "object", "additionalProperties": {"type": "string"}}
PRIORITY: Json = {"type": "string", "enum": [priority.word for priority in Priority]}
