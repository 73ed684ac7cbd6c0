"""The page of a preparation: what the archive holds, how it was divided, and what became of every input.

data_page(manifest, pick_excluded(batches of rejected.parquet), {"Archive": "s3://hands"}, "boneage prepare ...")
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from boneage_ray.archives.notes import cautions
from boneage_ray.decoding.reasons import MEANINGS
from boneage_ray.evaluation import data_figures as figures
from boneage_ray.evaluation.page import (
    SEX_WORDS,
    Number,
    Page,
    PagePicture,
    PageStatus,
    PageTable,
    Section,
    percent,
    render_page,
    shown,
)
from boneage_ray.preparation.overview import NONE, overview_lines
from boneage_ray.preparation.split import SPLITS
from boneage_ray.records.schema import Row

MAX_ROWS, MAX_THUMBNAILS = 200, 48
SHEET = 24  # thumbnails of one picture: what fits on a printed page
MAX_SHEET_BYTES = 2_500_000  # of all thumbnails; as text they take a third more
_LONGEST = 300  # letters of a cell, so that odd names and messages cannot swell the page
_EMBEDDED = ("overview", "counts", "split", "leaks")


def pick_excluded(batches: Iterable[pa.RecordBatch]) -> list[Row]:
    """Of the rows of rejected.parquet those that the page shows, in order: the first, and some thumbnails of every reason."""
    picked: list[Row] = []
    seen: Counter[str] = Counter()
    taken = 0
    for batch in batches:
        reasons, drawable = batch["reason"].to_pylist(), batch["thumbnail"].is_valid().to_pylist()
        for k, (reason, drawn) in enumerate(zip(reasons, drawable, strict=True)):
            kept = drawn and seen[reason] < MAX_THUMBNAILS
            seen[reason] += kept
            if kept or taken < MAX_ROWS:
                row = batch.slice(k, 1).to_pylist()[0]
                picked.append(row if kept else row | {"thumbnail": None})
            taken += 1
    return picked


def data_page(
    manifest: Mapping[str, Any],
    excluded: Sequence[Row],
    facts: Mapping[str, str],
    command: str,
    duplicates: Sequence[Row] = (),
) -> str:
    """The page of `boneage prepare`.

    `manifest`: overview (preparation/overview.py), counts (train, val, test, rejected), split (its settings), leaks (groups of a
    patient or of equal pixels that are on several sides). `excluded`: rows of rejected.parquet, all or as `pick_excluded`
    gives them. `duplicates`: rows of `overview.copies`.
    """
    seen = manifest["overview"]
    sections = [_balance(seen, command)]
    if seen["records"]:
        sections += [_split(manifest, command), _ages(seen, command), _sizes(seen, command), _origin(seen, command)]
    if duplicates:
        sections.append(_copies(seen, duplicates, command))
    if seen["rejected"]:
        sections += [_sheets(excluded, command), _listed(seen, excluded, command)]
    page = Page(
        title="Prepared radiographs",
        facts=facts,
        status=_status(manifest),
        numbers=_numbers(manifest),
        sections=sections,
        data={"facts": dict(facts), "command": command} | {name: manifest[name] for name in _EMBEDDED},
    )
    return render_page(page)


def _status(manifest: Mapping[str, Any]) -> PageStatus:
    seen, leaks = manifest["overview"], manifest["leaks"]
    inputs, records, rejected = seen["inputs"], seen["records"], seen["rejected"]
    account = f"{inputs:,} inputs = {records:,} records + {rejected:,} not used."
    divided = sum(manifest["counts"][split] for split in SPLITS)
    if inputs != records + rejected or divided != records or manifest["counts"]["rejected"] != rejected:
        fault = f"{divided:,} records are in the splits, {manifest['counts']['rejected']:,} inputs in rejected.parquet."
        return PageStatus("bad", "The balance sheet does not add up", [account, fault, "This is a fault of boneage."])
    details = [account, *overview_lines(seen)[1:]]
    if not records:
        return PageStatus("bad", "No input became a record", details)
    unsafe = [*cautions(manifest.get("tables", {"read": []})["read"]), *([_leak_words(leaks)] if leaks else [])]
    if rejected:
        return PageStatus("caution", f"{rejected:,} of {inputs:,} inputs were not used", [*unsafe, *details])
    if leaks:
        return PageStatus("caution", "The split that was given leaks", [*unsafe, *details])
    if unsafe:
        return PageStatus("caution", "A table of labels needs a look", [*unsafe, *details])
    return PageStatus("good", "Every input became a record", details)


def _leak_words(leaks: int) -> str:
    what = "1 patient or image is" if leaks == 1 else f"{leaks:,} patients or images are"
    return f"{what} on more than one side of the split that was given: measured errors will look smaller than they are."


def _numbers(manifest: Mapping[str, Any]) -> list[Number]:
    seen, leaks = manifest["overview"], manifest["leaks"]
    same, records, unknown = seen["duplicates"], seen["records"], seen["sexes"].get("unknown", 0)
    leaking = f"; on several sides: {leaks:,}" if leaks else "; each on one side"
    return [
        Number("Inputs", f"{seen['inputs']:,}", "files, and labels without a file"),
        Number("Records", f"{records:,}", f"{percent(records, seen['inputs'])} of the inputs"),
        Number("Not used", f"{seen['rejected']:,}", "each with its reason"),
        Number(
            "Duplicates",
            f"{same['records'] - same['groups']:,}",
            f"{same['records']:,} records, {same['groups']:,} different{leaking}"
            if same["groups"]
            else "no equal pixels",
        ),
        Number("Records without a sex", f"{unknown:,}", f"{percent(unknown, records)} of the records"),
    ]


def _balance(seen: Mapping[str, Any], command: str) -> Section:
    inputs, reasons = seen["inputs"], seen["rejected_by_reason"]
    rows = [
        ["records", "read, accepted and prepared", f"{seen['records']:,}", percent(seen["records"], inputs)],
        ["not used", "for one of the reasons below", f"{seen['rejected']:,}", percent(seen["rejected"], inputs)],
        ["sum", "all inputs", f"{inputs:,}", percent(inputs, inputs)],
    ]
    tables = [PageTable(["outcome", "meaning", "inputs", "share"], rows, "What became of every input", text_columns=2)]
    if not reasons:
        return Section("Balance sheet", tables=tables, command=command)
    why = [
        [reason, ", ".join(seen["steps"][reason]), MEANINGS.get(reason, ""), f"{count:,}", percent(count, inputs)]
        for reason, count in reasons.items()
    ]
    header = ["reason", "step", "meaning", "inputs", "share"]
    tables.append(PageTable(header, why, "Why inputs were not used", text_columns=3))
    listed = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
    picture = PagePicture(
        figures.reason_bars(reasons),
        f"Bars of the inputs that were not used, by reason; {listed}",
        "Not used, by reason.",
        True,
    )
    return Section("Balance sheet", tables=tables, pictures=[picture], command=command)


def _split(manifest: Mapping[str, Any], command: str) -> Section:
    ages, records = manifest["overview"]["ages"], manifest["overview"]["records"]
    rows = []
    for split, table in ages.items():
        sexes = [sum(row.get(sex, 0) for row in table.values()) for sex in SEX_WORDS]
        rows.append([split, f"{sum(sexes):,}", percent(sum(sexes), records), *(f"{count:,}" for count in sexes)])
    settings = "; ".join(f"{name}: {_setting(value)}" for name, value in manifest["split"].items() if value is not None)
    leaks = manifest["leaks"]
    text = [
        f"Settings: {settings}.",
        _leak_words(leaks)
        if leaks
        else "Images of one patient, where patients are known, and exact copies are on one side.",
    ]
    return Section(
        "Split",
        text,
        [PageTable(["split", "records", "share", *SEX_WORDS.values()], rows, "Records by split and sex")],
        (),
        command,
    )


def _setting(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _ages(seen: Mapping[str, Any], command: str) -> Section:
    ages, spread = seen["ages"], seen["age_months"]
    total: Counter[str] = Counter()
    for table in ages.values():
        for name, row in table.items():
            total[name] += sum(row.values())
    listed = ", ".join(f"{name}: {count:,}" for name, count in total.items())
    sexes = ", ".join(f"{count:,} {SEX_WORDS[sex]}" for sex, count in seen["sexes"].items())
    pictures = [
        PagePicture(
            figures.ages_by_sex(ages),
            f"Ages in bins of two years for each split, stacked by sex; in all {listed}",
            "Ages in bins of two years for each split, by sex. Each split has a scale of its own, so that shapes compare.",
            wide=True,
        ),
        PagePicture(
            figures.sex_shares(ages),
            f"Shares of the sexes in each split; in all {sexes}",
            f"Sex in each split; {sexes}.",
            True,
        ),
    ]
    text = []
    if spread["count"]:
        ends = f"from {spread['min']:g} to {spread['max']:g} months, with the median at {spread['median']:g}"
        text.append(f"{spread['count']:,} of {seen['records']:,} records have an age: {ends}.")
    tables = [_counts_table("sex comes from", seen["sex_sources"], seen["records"])]
    return Section("Ages and sex", text, tables, pictures, command)


def _counts_table(what: str, counts: Mapping[str, int], whole: int, caption: str = "") -> PageTable:
    rows = [[_cell(name), f"{count:,}", percent(count, whole)] for name, count in counts.items()]
    return PageTable([what, "records", "share"], rows, caption)


def _sizes(seen: Mapping[str, Any], command: str) -> Section:
    sizes, spacing, records = seen["sizes"], seen["spacing"], seen["records"]
    area, aspect = sizes["megapixels"], sizes["aspect"]
    none = spacing.get(NONE, {"count": 0})["count"]
    pictures = [
        PagePicture(
            figures.megapixel_histogram(area["bins"]),
            f"Histogram of the image sizes, {_ends(area, 2)} megapixels",
            "Sizes of the original images. The scale doubles every second bar.",
        ),
        PagePicture(
            figures.spacing_histogram(spacing),
            f"Histogram of the pixel spacing by its source; {none:,} records have none",
            "Pixel spacing of the original images by its source. ImagerPixelSpacing is that of the detector, not of the bone.",
        ),
    ]
    most = dict(sizes["most"]) | ({"other sizes": sizes["others"]} if sizes["others"] else {})
    spread = [
        [name, f"{found['count']:,}", *(shown(found[key], 3) for key in ("min", "median", "max"))]
        for name, found in spacing.items()
    ]
    tables = [
        _counts_table("width x height", most, records, "Most frequent sizes, pixels"),
        PageTable(["source", "records", "min", "median", "max"], spread, "Pixel spacing, mm per pixel"),
    ]
    text = [f"Megapixels {_ends(area, 2)}; height by width {_ends(aspect, 2)}."]
    return Section("Sizes and pixel spacing", text, tables, pictures, command)


def _ends(spread: Mapping[str, Any], digits: int) -> str:
    low, middle, high = (shown(spread[key], digits) for key in ("min", "median", "max"))
    return f"{low} to {high} (median {middle})"


def _origin(seen: Mapping[str, Any], command: str) -> Section:
    records = seen["records"]
    rest = seen["in_other_sources"]
    sources = dict(seen["sources"]) | ({"(all other sources)": rest} if rest else {})
    tables = [_counts_table("source", sources, records, "Which set the records belong to, as the metadata say")]
    if seen["flags"]:
        tables.append(_counts_table("flag", seen["flags"], records, "Soft warnings; a record may have several"))
    patients = f"{seen['patients']:,} patients are known." if seen["patients"] else "No patients are known."
    return Section("Origin and flags", [patients], tables, command=command)


def _copies(seen: Mapping[str, Any], duplicates: Sequence[Row], command: str) -> Section:
    total = seen["duplicates"]["records"]
    columns = ("group", "record_id", "input_uri", "split")
    rows = [[_cell(row[name]) for name in columns] for row in duplicates[:MAX_ROWS]]
    table = PageTable(
        ["group", "record", "input", "split"], rows, "Records of one group have equal pixels", text_columns=4
    )
    return Section("Duplicates", [_first(len(rows), total)], [table], command=command)


def _sheets(excluded: Sequence[Row], command: str) -> Section:
    chosen = mixed(excluded)
    if not chosen:
        return Section("Excluded images", ["None of the inputs that were not used could be drawn."])
    pictures = []
    for start in range(0, len(chosen), SHEET):
        rows = chosen[start : start + SHEET]
        listed = ", ".join(f"{reason}: {count}" for reason, count in Counter(row["reason"] for row in rows).items())
        last = start + len(rows)
        alt = f"Contact sheet of excluded images {start + 1} to {last}; {listed}"
        pictures.append(
            PagePicture(figures.contact_sheet(rows), alt, f"Excluded images {start + 1} to {last}.", wide=True)
        )
    text = "Is one of these a good radiograph? Then a threshold of the gate is wrong for this archive. All reasons take turns."
    return Section("Excluded images", [text], (), pictures, command)


def mixed(excluded: Sequence[Row]) -> list[Row]:
    """The rows for the contact sheet: those with a thumbnail, reasons in turn, no more than fit on the page."""
    by_reason: dict[str, list[Row]] = defaultdict(list)
    for row in excluded:
        if figures.is_thumbnail(row["thumbnail"]):
            by_reason[row["reason"]].append(row)
    left = MAX_SHEET_BYTES
    chosen: list[Row] = []
    for row in (row for turn in zip_longest(*by_reason.values()) for row in turn if row is not None):
        if len(chosen) < MAX_THUMBNAILS and len(row["thumbnail"]) <= left:
            left -= len(row["thumbnail"])
            chosen.append(row)
    return chosen


def _listed(seen: Mapping[str, Any], excluded: Sequence[Row], command: str) -> Section:
    columns = ("input_uri", "record_id", "step", "reason", "message")
    rows = [[_cell(row[name]) for name in columns] for row in excluded[:MAX_ROWS]]
    table = PageTable(["input", "record", "step", "reason", "message"], rows, text_columns=len(columns))
    text = f"{_first(len(rows), seen['rejected'])} rejected.parquet has a row for every one, with the same words."
    return Section("Inputs that were not used", [text], [table], command=command)


def _first(count: int, total: int) -> str:
    return f"The first {count:,} of {total:,}." if count < total else "All of them."


def _cell(value: object) -> str:
    """A value as text; of a very long one the beginning."""
    text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\u2026"
