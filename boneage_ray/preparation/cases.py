"""First step of a preparation: every input of an archive becomes a case, a record or the reason why there is none.

Cases are committed in parts below `DATA/cases/`; when all are committed, the records are split (shards.py).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.in_parts import inputs_of
from boneage_ray.archives.masks import mask_data
from boneage_ray.archives.notes import line_of_notes
from boneage_ray.archives.read import read_input
from boneage_ray.archives.updates import marks_of
from boneage_ray.errors import InputProblem
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage
from boneage_ray.records.known import known_of
from boneage_ray.records.schema import Row, case_schema, to_table
from boneage_ray.runtime import parts
from boneage_ray.runtime.cluster import run_parts
from boneage_ray.runtime.resources import Resources

CASES, KEY = "cases", "patients.key"


def run_cases(rows: parts.Rows, resources: Resources, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of the parts; `arguments` are those of `CaseWorker` without its processes."""
    return run_parts(rows, CaseWorker, {**arguments, "processes": resources.threads}, resources)


class CaseWorker:
    """Reads, prepares and commits one part. Decoding runs in separate processes, so a bad file affects no other."""

    def __init__(self, out: str, image: dict[str, Any], key: str, processes: int) -> None:
        self.out, self.key = out, key
        config = ImageConfig.model_validate(image)
        self.pool, self.mask_files = DecoderPool(config, processes), config.mask == "file"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the part and return its counts."""
        part = parts.Part(**row)
        listed = inputs_of(part)
        inputs = [item for item in listed if not item.is_remark]
        cases = list(parts.prefetched(self._case, inputs, self.pool.readers, ahead=2 * self.pool.readers))
        rejected = sum(case["reason"] is not None for case in cases)
        # Cases are read once more and deleted, so fast compression matters more than size.
        line = {"rejected": rejected} | line_of_notes(listed)
        marks = marks_of(inputs, cases)
        return parts.commit(self.out, part, to_table(cases, case_schema()), line, "lz4", marks)

    def _case(self, item: Input) -> Row:
        data = read_input(item)
        case: Row = {"input_uri": item.uri or None, "record_id": item.record_id, "step": None, "reason": None}
        try:
            if isinstance(data, InputProblem):
                raise data
            mask = mask_data(item) if self.mask_files else None
            return case | self._record(item, data, self.pool.prepare(data, mask))
        except InputProblem as problem:
            cause = {"step": problem.step, "reason": problem.reason, "message": problem.message}
            return case | cause | {"thumbnail": problem.thumbnail}

    def _record(self, item: Input, data: bytes, prepared: PreparedImage) -> Row:
        source = prepared.source
        known = known_of(item, source)
        height, width = prepared.original_size
        _check_points(item, height, width)
        return {
            **{name: source.uids.get(name) for name in ("study_uid", "series_uid", "sop_uid")},
            "input_sha256": hashlib.sha256(data).hexdigest(),
            "pixel_sha256": prepared.pixel_sha256,
            "age_months": item.age_months,
            "sex": known.sex,
            "sex_source": known.sex_source,
            "pixel_spacing_mm": known.pixel_spacing_mm,
            "pixel_spacing_source": known.pixel_spacing_source,
            "source": item.source,
            "image": prepared.pixels.tobytes(),
            "mask": None if prepared.mask is None else prepared.mask.tobytes(),
            "height": prepared.pixels.shape[0],
            "width": prepared.pixels.shape[1],
            "original_height": height,
            "original_width": width,
            "to_original": prepared.to_original,
            "vertebral": item.vertebral,
            "facial": item.facial,
            "flags": [*(flag for flag in prepared.flags if flag not in known.overruled), *known.flags],
            "patient": keyed(item.patient or source.patient, self.key),
            "split": item.split,
        }


def patient_key(out: str) -> str:
    """The random key of this run by which patients are hashed; it lies beside the cases and is deleted with them."""
    place = storage.join(out, CASES, KEY)
    if not storage.exists(place):
        storage.write_text(place, secrets.token_hex(32))
    return storage.read_text(place)


def keyed(patient: str | None, key: str) -> str | None:
    """A keyed hash that groups a patient's images within one run; its random key and it are deleted with the cases."""
    if patient is None:
        return None
    return hashlib.blake2b(patient.encode(errors="surrogateescape"), key=key.encode(), digest_size=16).hexdigest()


def _check_points(item: Input, height: int, width: int) -> None:
    """Raise `InputProblem` for a landmark outside the image, whose annotation must be of another image."""
    for x, y in (*(item.vertebral or ()), *(item.facial or ())):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            message = f"a landmark at ({x:g}, {y:g}) is outside the image of {width} x {height} pixels"
            raise InputProblem("list", "bad_label", message)
