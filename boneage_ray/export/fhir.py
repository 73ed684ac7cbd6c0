"""Result rows as FHIR R4 resources: a DiagnosticReport with its Observations, and the Device that made them.

Rows know no patient, so the resources name none: they refer to the imaging study by its UID, and the server knows whose it is.
Identifiers follow from the row: a resource that is sent twice is found, not made again.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from boneage_ray.export import codes
from boneage_ray.export.codes import Concept
from boneage_ray.export.words import NOT_FOR_DIAGNOSIS, findings_in_words, flags_in_words, model_in_words
from boneage_ray.records.schema import Row

Resource = dict[str, Any]
OWN_SYSTEM = f"urn:oid:{codes.OWN_SCHEME_UID}"
_SYSTEMS = {
    "LN": "http://loinc.org",
    "SCT": "http://snomed.info/sct",
    "UCUM": "http://unitsofmeasure.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    codes.OWN_SCHEME: OWN_SYSTEM,
}
_RADIOLOGY = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}]
}
_IMAGING = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
            "code": "imaging",
            "display": "Imaging",
        }
    ]
}
# What refers to a resource by type and id: in NDJSON "Device/ID", in a transaction "urn:uuid:ID".
Refer = Callable[[str, str], str]


def by_path(kind: str, identity: str) -> str:
    """A reference between resources of NDJSON files."""
    return f"{kind}/{identity}"


def by_uuid(_: str, identity: str) -> str:
    """A reference inside a transaction, which the server replaces."""
    return f"urn:uuid:{identity}"


def device(row: Row) -> Resource:
    """The model of a row, equal for all rows of that model and version."""
    facts = {name: row[name] for name in ("model", "model_sha256", "package_version")}
    return {
        **_head("Device", facts),
        "status": "active",
        "manufacturer": "boneage-ray",
        "deviceName": [{"name": row["model"], "type": "model-name"}],
        "serialNumber": row["model_sha256"],
        "version": [{"value": row["package_version"]}],
        "note": [{"text": NOT_FOR_DIAGNOSIS}],
    }


def report(row: Row, ended: datetime, refer: Refer) -> list[Resource]:
    """The DiagnosticReport of a row that has findings, then its Observations."""
    observations = [made for made in (_bone_age(row, refer), _cervical_stage(row, refer)) if made is not None]
    issued = ended.isoformat(timespec="seconds")
    for made in observations:
        made["issued"] = issued
    whole = {
        **_head("DiagnosticReport", row),
        "status": "preliminary",
        "category": [_RADIOLOGY],
        "code": _concept(codes.BONE_AGE_RADIOGRAPH if row["age_months"] is not None else codes.CVM_STAGE),
        "issued": issued,
        "result": [{"reference": refer("Observation", made["id"])} for made in observations],
        "conclusion": ". ".join(
            [*findings_in_words(row), *filter(None, [flags_in_words(row)]), model_in_words(row), NOT_FOR_DIAGNOSIS]
        ),
    }
    if row["study_uid"]:
        whole["imagingStudy"] = [_study(row)]
    if not observations:
        del whole["result"]
    return [whole, *observations]


def _head(kind: str, facts: Row) -> Resource:
    """Type, id and identifier; the place of the input does not count."""
    content = json.dumps(
        [kind, {name: value for name, value in facts.items() if name != "input_uri"}], sort_keys=True, default=str
    )
    identity = str(uuid.UUID(bytes=hashlib.sha256(content.encode()).digest()[:16], version=5))
    return {
        "resourceType": kind,
        "id": identity,
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{identity}"}],
    }


def _observation(row: Row, concept: Concept, refer: Refer) -> Resource:
    made = {
        **_head("Observation", row | {"observed": concept.value}),
        "status": "preliminary",
        "category": [_IMAGING],
        "code": _concept(concept),
        "method": _concept(codes.METHOD),
        "device": {"reference": refer("Device", device(row)["id"])},
        "note": [{"text": NOT_FOR_DIAGNOSIS}],
    }
    if row["study_uid"]:
        made["derivedFrom"] = [_study(row)]
    return made


def _bone_age(row: Row, refer: Refer) -> Resource | None:
    if row["age_months"] is None:
        return None
    made = _observation(row, codes.BONE_AGE, refer) | {"valueQuantity": _quantity(row["age_months"], codes.MONTHS)}
    parts = []
    if row["age_low_months"] is not None and row["age_high_months"] is not None:
        limits = {"low": row["age_low_months"], "high": row["age_high_months"]}
        between = {name: _quantity(value, codes.MONTHS) for name, value in limits.items()}
        parts.append({"code": _concept(codes.AGE_INTERVAL), "valueRange": between})
    numbers = (
        (codes.COVERAGE, _share(row["interval_coverage"]), codes.PERCENT),
        (codes.AGE_SPREAD, row["age_spread_months"], codes.MONTHS),
        (codes.CHRONOLOGICAL_AGE, row["chronological_age_months"], codes.MONTHS),
        (codes.AGE_DIFFERENCE, row["age_difference_months"], codes.MONTHS),
    )
    parts += [_component(concept, value, unit) for concept, value, unit in numbers if value is not None]
    parts.append({"code": _concept(codes.SEX_USED), "valueCodeableConcept": _concept(codes.SEXES[row["sex"]])})
    stages = row["stages"] or {}
    parts += [
        {"code": _concept(known), "valueCodeableConcept": _concept(codes.growth_stage(stages[name]))}
        for name, known in codes.GROWTH_STAGES.items()
        if name in stages
    ]
    return made | {"component": parts}


def _cervical_stage(row: Row, refer: Refer) -> Resource | None:
    if row["cvm_stage"] is None:
        return None
    made = _observation(row, codes.CVM_STAGE, refer)
    made["valueCodeableConcept"] = _concept(codes.cervical_stage(row["cvm_stage"]))
    parts = []
    if row["cvm_typical"] is not None:
        parts.append(
            {"code": _concept(codes.CVM_TYPICAL), "valueCodeableConcept": _concept(codes.TYPICAL[row["cvm_typical"]])}
        )
    for name, chance in (row["cvm_probabilities"] or {}).items():
        parts.append(_component(codes.stage_probability(name), _share(chance), codes.PERCENT))
    for name, value in (row["cvm_measurements"] or {}).items():
        if (known := codes.measured(name)) is not None:
            parts.append(_component(known[0], value, known[1]))
    return made | ({"component": parts} if parts else {})


def _component(concept: Concept, value: float | None, unit: Concept) -> Resource:
    return {"code": _concept(concept), "valueQuantity": _quantity(value or 0.0, unit)}


def _share(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _quantity(value: float, unit: Concept) -> Resource:
    return {"value": round(value, 4), "unit": unit.meaning, "system": _SYSTEMS["UCUM"], "code": unit.value}


def _concept(concept: Concept) -> Resource:
    coding = {"system": _SYSTEMS[concept.scheme], "code": concept.value, "display": concept.meaning}
    return {"coding": [coding], "text": concept.meaning}


def _study(row: Row) -> Resource:
    """The imaging study by its UID: whoever receives this has the study, under whatever id."""
    return {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{row['study_uid']}"}}
