"""JSON Schemas of events: what is promised to readers of the log in any language."""

from typing import Any

import msgspec

from keelson.events.base import Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PROSE = ("title", "description")


def file_stem(event_class: type[Event]) -> str:
    """Give the name under which a version's schema and sample are kept: `app.created.v1`."""
    return f"{event_class.event_type}.v{event_class.event_version}"


def schema_of(event_class: type[Event]) -> dict[str, Any]:
    """Give the JSON Schema of a version's payload, in one piece.

    Neither names of classes nor docstrings are in it: both may improve after a release, the schema never changes.
    """
    schema = msgspec.json.schema(event_class)
    plain: dict[str, Any] = _inlined(schema, schema.get("$defs", {}))
    return {"$schema": DIALECT, "$id": file_stem(event_class), **plain}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """Put definitions where they are referred to, and leave prose out; a field named `title` is a dict, and stays."""
    if isinstance(node, list | tuple):
        return [_inlined(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].removeprefix("#/$defs/")], definitions)
    return {
        key: _inlined(value, definitions) for key, value in node.items() if key not in PROSE or isinstance(value, dict)
    }
