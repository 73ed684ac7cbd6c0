"""The overview of an archive, counted from its cases: totals, ages, sexes, sizes, spacing, duplicates; also as text.

All but the totals describe the records. A part of the overview of 412 inputs::

    {"inputs": 412, "records": 371, "rejected": 41,
     "rejected_by_reason": {"wrong_body_part": 23, "truncated": 2, ...}, "steps": {"truncated": {"decode": 2}, ...},
     "ages": {"train": {"8-10 y": {"F": 12, "M": 15, "unknown": 1}, ...}, "val": ..., "test": ...},
     "sizes": {"known": 371, "most": {"1514 x 2044": 80, ...}, "others": 12, "megapixels": {"min": 0.9, ...}, ...},
     "spacing": {"dicom:PixelSpacing": {"count": 90, "min": 0.1, "median": 0.14, "max": 0.2, "bins": [...]}, ...},
     "duplicates": {"records": 8, "groups": 4}, ...}
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from boneage_ray.anatomy.growth import AGE_BINS, BIN_MONTHS, MAX_AGE_MONTHS
from boneage_ray.preparation.split import SPLITS
from boneage_ray.records.schema import Row

SEXES = ("F", "M", "unknown")
UNKNOWN_AGE, UNASSIGNED, NONE = "unknown", "unassigned", "none"
MOST_SIZES, MOST_SOURCES = 12, 50
# Bins of the figures. Spacing in mm per pixel, steps of 0.02; megapixels double every second bin. The ends are open.
SPACING_EDGES = tuple(round(0.02 * k, 2) for k in range(31))
MEGAPIXEL_EDGES = tuple(2.0 ** (k / 2) for k in range(-8, 15))
# Reasons without a readable image, which the triage counts as unreadable.
UNREADABLE = ("not_found", "permission_denied", "unreadable", "truncated", "unsupported_transfer_syntax")

Counts = dict[str, int]
_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


def overview(cases: pa.Table) -> dict[str, Any]:
    """Counts of a preparation, as JSON without NaN. `cases`: one row for every input, `case_schema()` without pixels.

    `split` is the final one. Computed on columns: a million rows take some seconds.
    """
    records = cases.filter(pc.is_null(cases["reason"]))
    refused = cases.filter(pc.is_valid(cases["reason"]))
    ages = _numbers(records["age_months"])
    sources = _counted(records["source"], NONE)
    return {
        "inputs": len(cases),
        "records": len(records),
        "rejected": len(refused),
        "rejected_by_reason": _counted(refused["reason"]),
        "steps": _steps(refused),
        "ages": _age_table(records, ages),
        "age_months": _spread(ages),
        "sexes": _in_order(_counted(records["sex"], "unknown")),
        "sex_sources": _counted(records["sex_source"], "unknown"),
        "sizes": _sizes(records),
        "spacing": _spacing(records),
        "sources": dict(list(sources.items())[:MOST_SOURCES]),
        "in_other_sources": sum(list(sources.values())[MOST_SOURCES:]),
        "flags": _counted(pc.list_flatten(records["flags"])),
        "patients": int(pc.count_distinct(records["patient"], mode="only_valid").as_py()),
        "duplicates": _duplicates(records),
    }


def overview_lines(overview: dict[str, Any]) -> list[str]:
    """The overview in a few lines, the most important first."""
    o = overview
    return [
        _headline(o),
        *([f"Not used: {_listed(o['rejected_by_reason'])}"] if o["rejected"] else []),
        *(_of_records(o) if o["records"] else []),
    ]


def copies(cases: pa.Table, limit: int = 200) -> list[Row]:
    """The first `limit` records that share their pixels with another: group, record_id, input_uri, split; groups from 1."""
    records = cases.filter(pc.is_null(cases["reason"]))
    shared = _shared_pixels(records)["pixel_sha256"]
    rows = records.filter(pc.is_in(records["pixel_sha256"], value_set=shared.combine_chunks()))
    keys = [("pixel_sha256", "ascending"), ("input_uri", "ascending")]
    chosen = rows.select(["pixel_sha256", "record_id", "input_uri", "split"]).sort_by(keys).slice(0, limit).to_pylist()
    numbers: Counts = {}
    return [{"group": numbers.setdefault(row.pop("pixel_sha256"), len(numbers) + 1), **row} for row in chosen]


def _headline(o: dict[str, Any]) -> str:
    unreadable = sum(o["rejected_by_reason"].get(reason, 0) for reason in UNREADABLE)
    extra = o["duplicates"]["records"] - o["duplicates"]["groups"]
    parts = [f"{_plural(o['inputs'], 'input')}: {_plural(o['records'], 'record')}, {o['rejected']:,} not used"]
    parts += [_plural(extra, "duplicate")] if extra else []
    parts += [f"{o['sexes']['unknown']:,} without sex"] if "unknown" in o["sexes"] else []
    parts += [f"{unreadable:,} unreadable"] if unreadable else []
    return "; ".join(parts)


def _of_records(o: dict[str, Any]) -> list[str]:
    ages, duplicates = o["age_months"], o["duplicates"]
    sides = {split: sum(sum(row.values()) for row in table.values()) for split, table in o["ages"].items()}
    lines = [f"Split: {_listed(sides)}"]
    lines += [f"Patients: {o['patients']:,}"] if o["patients"] else []
    if duplicates["groups"]:
        groups = _plural(duplicates["groups"], "group")
        lines.append(f"Duplicates: {duplicates['records']:,} records with the pixels of another, in {groups}")
    if ages["count"]:
        lines.append(f"Ages: {ages['min']:g} to {ages['max']:g} months, median {ages['median']:g}")
    if ages["count"] < o["records"]:
        lines.append(f"Without an age: {o['records'] - ages['count']:,}")
    lines.append(f"Sex: {_listed(o['sexes'])} (source: {_listed(o['sex_sources'])})")
    lines.append(f"Pixel spacing: {_listed({name: found['count'] for name, found in o['spacing'].items()})}")
    lines += [f"Flags: {_listed(o['flags'])}"] if o["flags"] else []
    return lines


def _listed(counts: Counts) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _counted(column: pa.ChunkedArray, of_null: str = NONE) -> Counts:
    """Value -> count, most frequent first, then by name."""
    found = pc.value_counts(pc.fill_null(column, of_null))
    pairs = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _in_order(sexes: Counts) -> Counts:
    return {sex: sexes[sex] for sex in SEXES if sex in sexes}


def _steps(refused: pa.Table) -> dict[str, Counts]:
    """Reason -> step -> count, in the order of the reasons."""
    steps: dict[str, Counts] = {reason: {} for reason in _counted(refused["reason"])}
    for row in refused.group_by(["reason", "step"]).aggregate([([], "count_all")]).to_pylist():
        steps[row["reason"]][row["step"] or NONE] = row["count_all"]
    return {reason: dict(sorted(found.items())) for reason, found in steps.items()}


def _numbers(column: pa.ChunkedArray) -> _Floats:
    """A number for each row; null and infinity are NaN."""
    values = column.cast(pa.float64()).to_numpy().astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _spread(values: _Floats) -> dict[str, Any]:
    """Count, min, median and max of the known values; the last three are None if there are none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return {"count": 0, "min": None, "median": None, "max": None}
    ends = {"min": known.min(), "median": np.median(known), "max": known.max()}
    return {"count": int(known.size)} | {name: round(float(value), 4) for name, value in ends.items()}


def _age_table(records: pa.Table, ages: _Floats) -> dict[str, dict[str, Counts]]:
    """Split -> two-year age bin -> sex -> count, youngest first; "unknown" age and "unassigned" split only where they occur."""
    bins, splits = (*AGE_BINS, UNKNOWN_AGE), (*SPLITS, UNASSIGNED)
    shape = (len(splits), len(bins), len(SEXES))
    at = (_index(records["split"], SPLITS), _age_bins(ages), _index(records["sex"], SEXES[:2]))
    table = np.bincount(np.ravel_multi_index(at, shape), minlength=int(np.prod(shape))).reshape(shape)
    return {
        split: {name: _present(table[i, k]) for k, name in enumerate(bins) if table[i, k].any()}
        for i, split in enumerate(splits)
        if split in SPLITS or table[i].any()
    }


def _present(counts: npt.NDArray[np.int64]) -> Counts:
    return {sex: int(count) for sex, count in zip(SEXES, counts, strict=True) if count}


def _index(column: pa.ChunkedArray, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """The index of each value among the names; for other values, the index after the last."""
    found = pc.fill_null(pc.index_in(column, value_set=pa.array(names)), len(names))
    return np.asarray(found.to_numpy(), np.int64)


def _age_bins(ages: _Floats) -> npt.NDArray[np.int64]:
    """`age_bin` as an index of AGE_BINS for a whole column; an unknown age has the index after the last."""
    inside = 1 + np.clip(np.nan_to_num(ages), 0, MAX_AGE_MONTHS - 1) // BIN_MONTHS
    last = len(AGE_BINS) - 1
    return np.select([np.isnan(ages), ages < 0, ages >= MAX_AGE_MONTHS], [last + 1, 0, last], inside).astype(np.int64)


def _sizes(records: pa.Table) -> dict[str, Any]:
    height, width = (_numbers(records[name]) for name in ("original_height", "original_width"))
    known: _Mask = np.isfinite(height) & np.isfinite(width) & (np.minimum(height, width) > 0)
    height, width = height[known], width[known]
    pairs, counts = np.unique(np.stack([width, height], 1).astype(np.int64), axis=0, return_counts=True)
    most = sorted(zip(pairs.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))[:MOST_SIZES]
    megapixels = width * height / 1e6
    return {
        "known": int(known.sum()),
        "most": {f"{w} x {h}": count for (w, h), count in most},
        "others": int(known.sum()) - sum(count for _, count in most),
        "megapixels": _spread(megapixels) | {"bins": _histogram(megapixels, MEGAPIXEL_EDGES)},
        "aspect": _spread(height / width),
    }


def _spacing(records: pa.Table) -> dict[str, dict[str, Any]]:
    """Source -> count, min, median, max and bins in mm per pixel; "none": no spacing is known. Most frequent first."""
    values, encoded = _numbers(records["pixel_spacing_mm"]), _dictionary(records["pixel_spacing_source"])
    known: _Mask = np.isfinite(values)
    source = np.asarray(encoded.indices.to_numpy(), np.int64)
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(encoded.dictionary.to_pylist()):
        chosen = values[known & (source == number)]
        if chosen.size:
            found[name] = _spread(chosen) | {"bins": _histogram(chosen, SPACING_EDGES)}
    found = dict(sorted(found.items(), key=lambda pair: (-pair[1]["count"], pair[0])))
    missing = int((~known).sum())
    return found | ({NONE: {**_spread(values[:0]), "count": missing}} if missing else {})


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return pc.fill_null(column, "unknown").combine_chunks().dictionary_encode()


def _histogram(values: _Floats, edges: tuple[float, ...]) -> list[int]:
    """Counts between the edges; values outside count in the first or last bin."""
    inside = np.clip(values, edges[0], np.nextafter(edges[-1], 0))
    return [int(count) for count in np.histogram(inside, bins=np.array(edges))[0]]


def _shared_pixels(records: pa.Table) -> pa.Table:
    """Hashes that more than one record has, each with its `count`."""
    known = records.filter(pc.is_valid(records["pixel_sha256"]))
    groups = known.group_by("pixel_sha256").aggregate([([], "count_all")]).rename_columns(["pixel_sha256", "count"])
    return groups.filter(pc.greater(groups["count"], 1))


def _duplicates(records: pa.Table) -> Counts:
    shared = _shared_pixels(records)
    return {"records": int(pc.sum(shared["count"]).as_py() or 0), "groups": len(shared)}
