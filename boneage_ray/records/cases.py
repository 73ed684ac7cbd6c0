"""First step of a preparation: every input of an archive becomes a case, a record or the reason why there is none.

Cases are committed in parts below `DATA/cases/`; once they are all there the records are divided (records/shards.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from boneage_ray import parts
from boneage_ray.archives.archive import Input
from boneage_ray.archives.read import read_input
from boneage_ray.cluster import Resources, run_parts
from boneage_ray.errors import InputProblem
from boneage_ray.records.isolated import DecoderPool
from boneage_ray.records.prepare import ImageConfig, Prepared
from boneage_ray.records.schema import Row, case_schema, to_table

CASES = "cases"
READERS = 4


def run_cases(rows: parts.Todo, resources: Resources, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of the parts; `arguments` are those of `CaseWorker` but for its processes."""
    return run_parts(rows, CaseWorker, {**arguments, "processes": resources.threads}, resources)


class CaseWorker:
    """Fetches, prepares and commits one part; decoding happens in processes of its own, so that a file can only spoil itself."""

    def __init__(self, out: str, image: dict[str, Any], key: str, processes: int) -> None:
        self.out, self.key = out, key
        self.pool = DecoderPool(ImageConfig.model_validate(image), processes)
        # As many files on their way from storage as are in work.
        self.readers = processes + READERS

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the part and return its counts."""
        part = parts.Part(**row)
        inputs = parts.inputs_of(part)
        cases = list(parts.prefetched(self._case, inputs, self.readers, ahead=2 * self.readers))
        rejected = sum(case["reason"] is not None for case in cases)
        # They are read once more and removed: quick matters more than small.
        return parts.commit(self.out, part, to_table(cases, case_schema()), {"rejected": rejected}, "lz4")

    def _case(self, item: Input) -> Row:
        data = read_input(item)
        case: Row = {"input_uri": item.uri or None, "record_id": item.record_id, "reason": None}
        try:
            if isinstance(data, InputProblem):
                raise data
            return case | self._record(item, data, self.pool.prepare(data))
        except InputProblem as problem:
            told = {"step": problem.step, "reason": problem.reason, "message": problem.message}
            return case | told | {"thumbnail": problem.thumbnail}

    def _record(self, item: Input, data: bytes, prepared: Prepared) -> Row:
        source = prepared.source
        sex, sex_source = (
            (item.sex, item.sex_source) if item.sex else (source.sex, "dicom" if source.sex else "unknown")
        )
        spacing, spacing_source = item.pixel_spacing_mm, item.pixel_spacing_source
        if spacing is None:
            spacing, spacing_source = source.pixel_spacing_mm, source.pixel_spacing_source
        height, width = prepared.original_size
        _check_points(item, height, width)
        return {
            **{name: source.uids.get(name) for name in ("study_uid", "series_uid", "sop_uid")},
            "input_sha256": hashlib.sha256(data).hexdigest(),
            "pixel_sha256": prepared.pixel_sha256,
            "age_months": item.age_months,
            "sex": sex,
            "sex_source": sex_source,
            "pixel_spacing_mm": spacing,
            "pixel_spacing_source": spacing_source,
            "source": item.source,
            "image": prepared.pixels.tobytes(),
            "height": prepared.pixels.shape[0],
            "width": prepared.pixels.shape[1],
            "original_height": height,
            "original_width": width,
            "to_original": prepared.to_original,
            "vertebral": item.vertebral,
            "facial": item.facial,
            "flags": [*prepared.flags, *(["sex_unknown"] if sex is None else [])],
            "patient": self._keyed(item.patient or source.patient),
            "split": item.split,
        }

    def _keyed(self, patient: str | None) -> str | None:
        """Tells images of one patient within this run only; removed with the cases once they are divided."""
        if patient is None:
            return None
        return hashlib.blake2b(
            patient.encode(errors="surrogateescape"), key=self.key.encode(), digest_size=16
        ).hexdigest()


def _check_points(item: Input, height: int, width: int) -> None:
    """Raises `InputProblem` for a landmark that is not on the image: the annotation belongs to another one."""
    for x, y in (*(item.vertebral or ()), *(item.facial or ())):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            message = f"a landmark at ({x:g}, {y:g}) is outside the image of {width} x {height} pixels"
            raise InputProblem("list", "bad_label", message)
