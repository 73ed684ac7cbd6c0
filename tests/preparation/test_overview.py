"""The overview of an archive: counts and text."""

import json
from typing import get_args

import pyarrow as pa
import pytest

from boneage_ray.anatomy.growth import AGE_BINS, age_bin
from boneage_ray.decoding.reasons import MEANINGS
from boneage_ray.errors import Reason
from boneage_ray.preparation.overview import MEGAPIXEL_EDGES, SPACING_EDGES, copies, overview, overview_lines
from boneage_ray.records.schema import case_schema, to_table

SMALL = [
    name for name in case_schema().names if name not in ("image", "thumbnail", "vertebral", "facial", "to_original")
]


def record(name, **values):
    row = {
        "record_id": name,
        "input_uri": f"s3://hands/{name}.png",
        "age_months": 100.0,
        "sex": "F",
        "sex_source": "metadata",
        "original_height": 2000,
        "original_width": 1500,
        "flags": [],
        "pixel_sha256": f"pixels of {name}",
        "split": "train",
    }
    return row | values


def refused(name, reason, step="decode"):
    return {"record_id": name, "input_uri": f"s3://hands/{name}.png", "step": step, "reason": reason}


def seen(*rows):
    return overview(to_table(list(rows), case_schema()).select(SMALL))


RADIOGRAPH = {"pixel_spacing_mm": 0.14, "pixel_spacing_source": "dicom:PixelSpacing"}
DETECTOR = {"pixel_spacing_mm": 0.2, "pixel_spacing_source": "dicom:ImagerPixelSpacing"}
ROWS = [
    record("a", source="site-a", patient="p", **RADIOGRAPH),
    record("b", sex="M", source="site-a", patient="p", **RADIOGRAPH | {"pixel_spacing_mm": 0.1}),
    record(
        "c", sex=None, sex_source="unknown", flags=["sex_unknown", "spacing_unknown"], age_months=None, split="test"
    ),
    record(
        "d", sex="M", sex_source="dicom", patient="q", original_width=1000, split="val", age_months=30.0, **DETECTOR
    ),
    record("e", pixel_sha256="pixels of a", flags=["spacing_unknown"]),
    refused("x", "truncated"),
    refused("y", "too_large", "read"),
    refused("z", "too_large"),
]


def test_the_totals_and_the_reasons_with_their_steps():
    found = seen(*ROWS)
    assert (found["inputs"], found["records"], found["rejected"]) == (8, 5, 3)
    assert found["rejected_by_reason"] == {"too_large": 2, "truncated": 1}
    assert list(found["rejected_by_reason"]) == ["too_large", "truncated"]
    assert found["steps"] == {"too_large": {"decode": 1, "read": 1}, "truncated": {"decode": 1}}


def test_ages_by_split_and_sex_and_an_unknown_age_is_not_lost():
    found = seen(*ROWS)
    assert found["ages"] == {
        "train": {"8-10 y": {"F": 2, "M": 1}},
        "val": {"2-4 y": {"M": 1}},
        "test": {"unknown": {"unknown": 1}},
    }
    assert found["age_months"] == {"count": 4, "min": 30.0, "median": 100.0, "max": 100.0}
    assert found["sexes"] == {"F": 2, "M": 2, "unknown": 1}
    assert found["sex_sources"] == {"metadata": 3, "dicom": 1, "unknown": 1}


@pytest.mark.parametrize("age", [-1e-9, -12.0, 0.0, 23.99, 24.0, 100.0, 239.99, 240.0, 1e9])
def test_ages_fall_into_the_bins_of_the_rest_of_the_package(age):
    found = seen(record("a", age_months=age))
    assert list(found["ages"]["train"]) == [age_bin(age)]
    assert age_bin(age) in AGE_BINS


def test_values_that_are_not_numbers_are_unknown_and_the_overview_stays_json():
    found = seen(
        record("a", age_months=float("nan"), pixel_spacing_mm=float("inf"), pixel_spacing_source="metadata"),
        record("b", split=None),
    )
    assert found["ages"]["train"] == {"unknown": {"F": 1}}
    assert found["ages"]["unassigned"] == {"8-10 y": {"F": 1}}
    assert found["spacing"]["none"]["count"] == 2
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_sizes_and_their_histogram():
    sizes = seen(*ROWS)["sizes"]
    assert sizes["known"] == 5
    assert sizes["most"] == {"1500 x 2000": 4, "1000 x 2000": 1}
    assert sizes["others"] == 0
    bins = sizes["megapixels"].pop("bins")
    assert sizes["megapixels"] == {"count": 5, "min": 2.0, "median": 3.0, "max": 3.0}
    assert sizes["aspect"] == {"count": 5, "min": 1.3333, "median": 1.3333, "max": 2.0}
    assert {round(MEGAPIXEL_EDGES[k], 2): n for k, n in enumerate(bins) if n} == {2.0: 1, 2.83: 4}


def test_only_the_most_frequent_sizes_are_named():
    sizes = seen(*(record(str(k), original_width=100 + k) for k in range(15)))["sizes"]
    assert len(sizes["most"]) == 12
    assert sizes["others"] == 3


def test_spacing_by_its_source():
    spacing = seen(*ROWS)["spacing"]
    bins = spacing["dicom:PixelSpacing"].pop("bins")
    assert list(spacing) == ["dicom:PixelSpacing", "dicom:ImagerPixelSpacing", "none"]
    assert spacing["dicom:PixelSpacing"] == {"count": 2, "min": 0.1, "median": 0.12, "max": 0.14}
    assert spacing["none"] == {"count": 2, "min": None, "median": None, "max": None}
    assert {SPACING_EDGES[k]: n for k, n in enumerate(bins) if n} == {0.1: 1, 0.14: 1}


@pytest.mark.parametrize(("value", "place"), [(-1.0, 0), (0.0, 0), (0.6, -1), (25.4, -1)])
def test_odd_spacing_is_counted_in_the_outer_bins(value, place):
    bins = seen(record("a", pixel_spacing_mm=value))["spacing"]["unknown"]["bins"]
    assert bins[place] == sum(bins) == 1


def test_sources_flags_patients_and_duplicates():
    found = seen(*ROWS)
    assert found["sources"] == {"none": 3, "site-a": 2}
    assert found["flags"] == {"spacing_unknown": 2, "sex_unknown": 1}
    assert found["patients"] == 2
    assert found["duplicates"] == {"records": 2, "groups": 1}


def test_a_source_for_every_record_does_not_swell_the_overview():
    found = seen(*(record(str(k), source=f"site {k}") for k in range(70)))
    assert len(found["sources"]) == 50
    assert found["in_other_sources"] == 20


def test_records_without_a_pixel_hash_are_no_copies_of_each_other():
    assert seen(record("a", pixel_sha256=None), record("b", pixel_sha256=None))["duplicates"] == {
        "records": 0,
        "groups": 0,
    }


def test_copies_are_listed_group_by_group():
    table = to_table([*ROWS, record("f", pixel_sha256="pixels of d", split="test")], case_schema())
    rows = copies(table)
    assert [(row["group"], row["record_id"], row["split"]) for row in rows] == [
        (1, "a", "train"),
        (1, "e", "train"),
        (2, "d", "val"),
        (2, "f", "test"),
    ]
    assert rows[1]["input_uri"] == "s3://hands/e.png"
    assert len(copies(table, limit=3)) == 3


def test_triage_in_words():
    lines = overview_lines(seen(*ROWS))
    assert lines == [
        "8 inputs: 5 records, 3 not used; 1 duplicate; 1 without sex; 1 unreadable",
        "Not used: 2 too_large, 1 truncated",
        "Split: 3 train, 1 val, 1 test",
        "Patients: 2",
        "Duplicates: 2 records with the pixels of another, in 1 group",
        "Ages: 30 to 100 months, median 100",
        "Without an age: 1",
        "Sex: 2 F, 2 M, 1 unknown (source: 3 metadata, 1 dicom, 1 unknown)",
        "Pixel spacing: 2 dicom:PixelSpacing, 1 dicom:ImagerPixelSpacing, 2 none",
        "Flags: 2 spacing_unknown, 1 sex_unknown",
    ]


def test_nothing_and_only_refused_inputs_make_an_overview():
    empty = seen()
    assert overview_lines(empty) == ["0 inputs: 0 records, 0 not used"]
    assert empty["ages"] == {"train": {}, "val": {}, "test": {}}
    assert copies(case_schema().empty_table()) == []
    assert overview_lines(seen(refused("x", "truncated"))) == [
        "1 input: 0 records, 1 not used; 1 unreadable",
        "Not used: 1 truncated",
    ]


def test_parts_of_a_table_count_like_one_table():
    table = to_table(ROWS, case_schema()).select(SMALL)
    assert overview(pa.concat_tables([table.slice(0, 3), table.slice(3, 0), table.slice(3)])) == overview(table)


def test_every_reason_has_a_meaning():
    assert set(get_args(Reason)) == set(MEANINGS)
    assert all(meaning == meaning.strip() and len(meaning) > 10 for meaning in MEANINGS.values())
