"""A custom resource's schema made strict: the API server drops unknown keys without a word, and a typo with them."""

from __future__ import annotations

import jsonschema


def strict(schema):
    """The same schema, in which an object takes no keys but those that are named."""
    closed = _closed(schema)
    closed["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own; checked with the others
    return closed


def _closed(schema):
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    names = schema.get("properties")
    if isinstance(names, dict) and "type" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def faults(schema, document):
    """One line a fault: where it is, and what."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return sorted(f"{error.json_path}: {error.message}" for error in found)
