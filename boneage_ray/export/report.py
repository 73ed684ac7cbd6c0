"""A result row as a DICOM structured report: TID 1500, Measurement Report, of the class Comprehensive SR.

The content is of highdicom's templates. One group of measurements is of the whole image, and one of each landmark, with its place
as a spatial coordinate (SCOORD, landmark_groups.py). DICOM counts pixels of an image region from the corner of the first one: the
centre of pixel (0, 0) is (0.5, 0.5) there, and (0, 0) in a result row.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from highdicom import sr
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from boneage_ray.export import codes
from boneage_ray.export.envelope import (
    MAKER,
    REPORT,
    derived_uid,
    device_uid,
    enveloped,
    object_uid,
    printable_ascii,
    reference,
)
from boneage_ray.export.landmark_groups import landmark_groups, written_as_they_are
from boneage_ray.export.source import Source
from boneage_ray.records.schema import Row

_DEVICE = codes.Concept("121007", "DCM", "Device")
_TITLE = codes.Concept("126000", "DCM", "Imaging Measurement Report")
_IMAGE_TRACKING = "image"


def make_report(source: Source, ended: datetime) -> Dataset:
    """The report of one row that has findings; complete, preliminary and unverified."""
    row, header = source.row, source.header
    made = enveloped(REPORT, row, header, ended)
    with disable_value_validation():
        made.CompletionFlag, made.VerificationFlag, made.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
        made.ReferencedPerformedProcedureStepSequence = Sequence()
        made.PerformedProcedureCodeSequence = Sequence()
        made.CurrentRequestedProcedureEvidenceSequence = Sequence([_evidence(header)])
        (content,) = _content(row, header)
        measured = content.ContentSequence[-1]
        groups = Sequence([*measured.ContentSequence, *landmark_groups(row, header)])
        measured.add(DataElement("ContentSequence", "SQ", groups))
        for element in content:
            made.add(element)
        written_as_they_are(made)
    return made


def _evidence(header: Dataset) -> Dataset:
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = header.SeriesInstanceUID, Sequence([reference(header)])
    study.StudyInstanceUID, study.ReferencedSeriesSequence = header.StudyInstanceUID, Sequence([series])
    return study


@cache
def _coded(concept: codes.Concept) -> sr.CodedConcept:
    return sr.CodedConcept(concept.value, concept.scheme, concept.meaning)


def _content(row: Row, header: Dataset) -> Any:  # noqa: ANN401  highdicom's sequence of one container
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(row), name=MAKER, manufacturer_name=MAKER, model_name=printable_ascii(row["model"])
    )
    algorithm = sr.AlgorithmIdentification(
        name=printable_ascii(row["model"]),
        version=printable_ascii(row["package_version"]),
        parameters=[f"SHA-256 of the model bundle: {row['model_sha256']}"],
        manufacturer=MAKER,
    )
    procedure = codes.BONE_AGE_RADIOGRAPH if row["age_months"] is not None else codes.RADIOGRAPHY
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(_coded(_DEVICE), observer)
        ),
        procedure_reported=_coded(procedure),
        imaging_measurements=[_of_image(row, header, algorithm)],
        title=_coded(_TITLE),
    )


def _of_image(row: Row, header: Dataset, algorithm: sr.AlgorithmIdentification) -> Any:  # noqa: ANN401  a template
    image = sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)
    return sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(uid=derived_uid(_IMAGE_TRACKING, object_uid(REPORT, row)), identifier=_IMAGE_TRACKING),
        algorithm_id=algorithm,
        measurements=[*_ages(row), *_cervical(row)] or None,
        qualitative_evaluations=_evaluations(row) or None,
        source_images=[image],
    )


def _ages(row: Row) -> list[sr.Measurement]:
    age = row["age_months"]
    if age is None:
        return []
    low, high = row["age_low_months"], row["age_high_months"]
    has_interval = low is not None and high is not None
    found = [
        _number(
            codes.BONE_AGE,
            age,
            codes.MONTHS,
            method=_coded(codes.METHOD),
            properties=_uncertainty(age, low, high) if has_interval else None,
        )
    ]
    if has_interval:
        found += [_number(codes.AGE_LOW, low, codes.MONTHS), _number(codes.AGE_HIGH, high, codes.MONTHS)]
        if row["interval_coverage"] is not None:
            found.append(_number(codes.COVERAGE, 100 * row["interval_coverage"], codes.PERCENT))
    others = (
        (codes.AGE_SPREAD, "age_spread_months"),
        (codes.CHRONOLOGICAL_AGE, "chronological_age_months"),
        (codes.AGE_DIFFERENCE, "age_difference_months"),
    )
    return found + [_number(concept, row[name], codes.MONTHS) for concept, name in others if row[name] is not None]


def _uncertainty(age: float, low: float, high: float) -> sr.MeasurementProperties:
    """How far the interval goes above and below the age; highdicom itself would write them without a unit."""
    properties = sr.MeasurementProperties()
    for concept, value in ((codes.UNCERTAINTY_ABOVE, high - age), (codes.UNCERTAINTY_BELOW, age - low)):
        number = _decimal(max(value, 0.0))
        properties.append(
            sr.NumContentItem(_coded(concept), number, _coded(codes.MONTHS), relationship_type="HAS PROPERTIES")
        )
    return properties


def _cervical(row: Row) -> list[sr.Measurement]:
    named = [(codes.measured(name), value) for name, value in (row["cvm_measurements"] or {}).items()]
    found = [_number(known[0], value, known[1]) for known, value in named if known is not None]
    chances = row["cvm_probabilities"] or {}
    return found + [_number(codes.stage_probability(name), 100 * p, codes.PERCENT) for name, p in chances.items()]


def _number(concept: codes.Concept, value: float, unit: codes.Concept, **more: Any) -> sr.Measurement:  # noqa: ANN401
    return sr.Measurement(_coded(concept), _decimal(value), _coded(unit), **more)


def _decimal(value: float) -> float:
    """A value that a decimal string of 16 letters holds."""
    return float(f"{value:.6g}")


def _evaluations(row: Row) -> list[sr.QualitativeEvaluation]:
    pairs: list[tuple[codes.Concept, codes.Concept]] = []
    if row["age_months"] is not None:
        pairs.append((codes.SEX_USED, codes.SEXES[row["sex"]]))
    stages = row["stages"] or {}
    pairs += [
        (known, codes.growth_stage(stages[name])) for name, known in codes.GROWTH_STAGES.items() if name in stages
    ]
    if row["cvm_stage"] is not None:
        pairs.append((codes.CVM_STAGE, codes.cervical_stage(row["cvm_stage"])))
    if row["cvm_typical"] is not None:
        pairs.append((codes.CVM_TYPICAL, codes.TYPICAL[row["cvm_typical"]]))
    pairs += [(codes.WARNING, codes.warning(flag)) for flag in row["flags"]]
    return [sr.QualitativeEvaluation(_coded(name), _coded(value)) for name, value in pairs]
