"""FHIR resources as files: transactions that a server takes one by one, and NDJSON for a bulk import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from boneage_ray import storage
from boneage_ray.export.fhir import Resource, by_path, by_uuid, device, report
from boneage_ray.export.words import has_findings
from boneage_ray.records.schema import Row

REPORTS_A_TRANSACTION = 100
_KINDS = ("Device", "DiagnosticReport", "Observation")


def write_fhir(tables: Iterator[list[Row]], place: str, ended: datetime) -> int:
    """Write `ndjson/TYPE.ndjson` and `transactions/part-*.json`; returns the number of reports."""
    reported = (row for rows in tables for row in rows if has_findings(row))
    waiting: list[Row] = []
    count = bundles = 0
    with ExitStack() as files:
        streams = {
            kind: files.enter_context(storage.open_write(storage.join(place, "ndjson", f"{kind}.ndjson")))
            for kind in _KINDS
        }
        devices: set[str] = set()

        def write(resource: Resource) -> None:
            streams[resource["resourceType"]].write((json.dumps(resource, ensure_ascii=False) + "\n").encode())

        for row in reported:
            if (made := device(row))["id"] not in devices:
                devices.add(made["id"])
                write(made)
            for resource in report(row, ended, by_path):
                write(resource)
            count += 1
            waiting.append(row)
            if len(waiting) == REPORTS_A_TRANSACTION:
                bundles = _write_transaction(waiting, place, bundles, ended)
        if waiting:
            _write_transaction(waiting, place, bundles, ended)
    return count


def _write_transaction(waiting: list[Row], place: str, number: int, ended: datetime) -> int:
    """Write the waiting rows as one transaction, and let none wait; returns the next number."""
    whole = json.dumps(transaction(waiting, ended), ensure_ascii=False, indent=1)
    storage.write_text(storage.join(place, "transactions", f"part-{number:05d}.json"), whole + "\n")
    waiting.clear()
    return number + 1


def transaction(rows: list[Row], ended: datetime) -> dict[str, Any]:
    """A Bundle that creates the reports of some rows on a server, without those that it has by their identifier."""
    resources: dict[str, Resource] = {}
    for row in rows:
        for made in (device(row), *report(row, ended, by_uuid)):
            resources.setdefault(made["id"], made)
    return {"resourceType": "Bundle", "type": "transaction", "entry": [_entry(made) for made in resources.values()]}


def _entry(resource: Resource) -> Resource:
    (identifier,) = resource["identifier"]
    kind = resource["resourceType"]
    condition = f"identifier={identifier['system']}|{identifier['value']}"
    return {
        "fullUrl": identifier["value"],
        "resource": {name: value for name, value in resource.items() if name != "id"},
        "request": {"method": "POST", "url": kind, "ifNoneExist": condition},
    }
