"""The page of a preparation: balanced, escaped, small, and every figure in words too."""

import json
import re
from functools import cache
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from boneage_ray.evaluation import data_figures as figures
from boneage_ray.evaluation.data_report import MAX_SHEET_BYTES, data_page, mixed, pick_excluded
from boneage_ray.phantoms.png import encode_gray_png
from boneage_ray.preparation.overview import copies, overview
from boneage_ray.records.schema import case_schema, rejected_schema, to_table

COMMAND = "boneage prepare HANDS --out DATA"
NASTY = '</script><script>alert("1")</script>'
THUMBNAIL = encode_gray_png(np.arange(64, dtype=np.uint8).reshape(8, 8))
SPLIT = {"shares": "70/15/15", "stratify": ["sex", "age"], "seed": 7, "table": None}


def record(k, **values):
    split = ("train", "train", "val", "test")[k % 4]
    row = {"record_id": f"r{k}", "input_uri": f"s3://hands/r{k}.png", "split": split, "pixel_sha256": f"p{k}"}
    row |= {"age_months": 20.0 * (k % 11), "sex": ("F", "M", None)[k % 3], "sex_source": "metadata", "flags": []}
    row |= {"original_height": 2000, "original_width": 1500 + k}
    if k % 2:
        row |= {"pixel_spacing_mm": 0.1 + k / 1000, "pixel_spacing_source": "dicom:PixelSpacing"}
    return row | values


def refused(k, reason="blank", **values):
    row = {"record_id": f"x{k}", "input_uri": f"s3://hands/x{k}.png", "step": "quality", "reason": reason}
    return row | {"message": "one gray level", "thumbnail": THUMBNAIL} | values


RECORDS = [record(k) for k in range(40)]
REFUSED = [refused(0), refused(1, "inverted"), refused(2, "truncated", step="decode", thumbnail=None)]


def manifest_of(rows, leaks=0):
    seen = overview(to_table(rows, case_schema()))
    counts = {split: sum(row.get("split") == split for row in rows) for split in ("train", "val", "test")}
    return {"overview": seen, "counts": counts | {"rejected": seen["rejected"]}, "split": SPLIT, "leaks": leaks}


def rejected_rows(rows):
    table = to_table(rows, case_schema()).select(rejected_schema().names)
    return [row for row in table.to_pylist() if row["reason"] is not None]


def page_of(rows, leaks=0):
    table = to_table(rows, case_schema())
    return data_page(manifest_of(rows, leaks), rejected_rows(rows), {"Archive": "s3://hands"}, COMMAND, copies(table))


@cache
def usual_page(with_refused=True):
    """The page of RECORDS and REFUSED, drawn once for all tests that read it."""
    return page_of(RECORDS + REFUSED if with_refused else RECORDS)


def status_of(page):
    return re.search(r'<div class="status (\w+)".*?<strong>(.*?)</strong>(.*?)</div>', page, re.DOTALL).groups()


class Reader(HTMLParser):
    """Collects tags with their attributes, and the embedded JSON."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.script = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and not self.script:
            self.script = data


def texts(svg):
    nodes = ElementTree.fromstring(svg).iter()
    return ["".join(node.itertext()).strip() for node in nodes if node.tag.endswith("}text")]


def test_the_page_balances_and_names_every_reason():
    page = usual_page()
    level, headline, details = status_of(page)
    assert (level, headline) == ("caution", "3 of 43 inputs were not used")
    assert "43 inputs = 40 records + 3 not used." in details
    assert "Not used: 1 blank, 1 inverted, 1 truncated" in details
    assert page.count('class="label"') == 5
    for words in ("one shade of grey only", "bone is dark and air is bright", "the file ends too early"):
        assert words in page
    assert (
        page.count("<td>40</td><td>93.0%</td>")
        == page.replace("</td>\n<td>", "</td><td>").count("<td>40</td><td>93.0%</td>") - 1
    )


def test_a_clean_preparation_is_good_and_has_no_excluded_images():
    page = usual_page(with_refused=False)
    assert status_of(page)[:2] == ("good", "Every input became a record")
    assert "Excluded images" not in page
    assert "Inputs that were not used" not in page


def test_without_any_record_the_page_is_bad_and_still_lists_the_reasons():
    page = page_of(REFUSED)
    assert status_of(page)[:2] == ("bad", "No input became a record")
    assert "the file ends too early" in page
    assert "<h2>Split</h2>" not in page


def test_a_split_that_leaks_is_told_on_top():
    level, headline, details = status_of(page_of(RECORDS, leaks=2))
    assert (level, headline) == ("caution", "The split that was given leaks")
    assert "2 patients or images are on more than one side" in details
    assert "1 patient or image is on more than one side" in page_of(RECORDS, leaks=1)
    assert "exact copies are on one side" in usual_page(with_refused=False)


@pytest.mark.parametrize("change", [{"train": 19}, {"rejected": 2}])
def test_a_record_that_got_lost_is_told(change):
    manifest = manifest_of(RECORDS + REFUSED)
    manifest["counts"] |= change
    page = data_page(manifest, [], {}, COMMAND)
    assert status_of(page)[:2] == ("bad", "The balance sheet does not add up")


def test_everything_from_outside_is_escaped():
    rows = [record(0, source=NASTY), record(1, record_id=NASTY, input_uri=NASTY, pixel_sha256="p0")]
    rows += [refused(0, input_uri=NASTY.replace("/", "|"), record_id=NASTY, message=NASTY), refused(1, input_uri=NASTY)]
    page = page_of(rows)
    assert [attributes["type"] for tag, attributes in Reader(page).tags if tag == "script"] == ["application/json"]
    assert "<script>" not in page
    assert page.count("alert(") == page.count("script&gt;alert(") + page.count("\\u003cscript>alert(")


def test_the_page_loads_nothing_and_every_id_is_in_one_figure():
    read = Reader(usual_page())
    places = [a[key] for _, a in read.tags for key in ("src", "href", "xlink:href") if key in a]
    assert places
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in places)
    owners, figure = {}, None
    for tag, attributes in read.tags:
        figure = attributes.get("aria-label", figure) if tag == "svg" else figure
        if "id" in attributes:
            owners.setdefault(attributes["id"], set()).add(figure)
    assert [name for name, found in owners.items() if len(found) > 1] == []


def test_every_figure_has_words_and_every_section_its_command():
    page = page_of(RECORDS + REFUSED + [record(41, pixel_sha256="p0")])
    figures_of = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures_of) == 6  # reasons, ages, sex, sizes, spacing, contact sheet
    assert all(re.search(r'role="img" aria-label="[^"]{20,}', found) for found in figures_of)
    sections = re.findall(r"<section>.*?</section>", page, re.DOTALL)
    titles = [re.search("<h2>(.*?)</h2>", section)[1] for section in sections]
    assert titles == [
        *("Balance sheet", "Split", "Ages and sex", "Sizes and pixel spacing", "Origin and flags", "Duplicates"),
        *("Excluded images", "Inputs that were not used"),
    ]
    assert all(f"<code>{COMMAND}</code>" in section for section in sections)
    assert "#123456" not in page


def test_embedded_json_is_the_overview():
    manifest = manifest_of(RECORDS + REFUSED)
    found = json.loads(Reader(usual_page()).script)
    assert found["overview"] == json.loads(json.dumps(manifest["overview"]))
    assert (found["counts"], found["leaks"], found["command"]) == (manifest["counts"], 0, COMMAND)


def test_reasons_take_turns_on_the_contact_sheet_and_only_png_is_drawn():
    rows = rejected_rows([refused(k) for k in range(60)] + [refused(100 + k, "inverted") for k in range(3)])
    rows += rejected_rows(
        [refused(200, "too_small", thumbnail=b"<svg onload=x>"), refused(201, "too_small", thumbnail=None)]
    )
    chosen = mixed(rows)
    assert [row["reason"] for row in chosen[:7]] == ["blank", "inverted"] * 3 + ["blank"]
    assert len(chosen) == 48
    assert {row["reason"] for row in chosen} == {"blank", "inverted"}


def test_the_page_of_very_many_long_rows_and_large_thumbnails_stays_below_5_mb():
    large = THUMBNAIL + bytes(200_000)
    many = [
        refused(k, input_uri="s3://" + "x" * 5000 + str(k), message="m" * 5000, thumbnail=large) for k in range(400)
    ]
    assert sum(len(row["thumbnail"]) for row in mixed(rejected_rows(many))) <= MAX_SHEET_BYTES
    page = page_of(RECORDS + many)
    assert len(page.encode()) < 5_000_000
    assert "The first 200 of 400." in page


def test_rows_are_picked_from_a_long_table_without_keeping_its_thumbnails():
    rows = [refused(k) for k in range(500)] + [refused(k, "inverted") for k in range(500, 600)]
    rows.insert(100, refused(1000, "truncated", thumbnail=None))
    table = to_table(rows, case_schema()).select(rejected_schema().names)
    picked = pick_excluded(table.to_batches(max_chunksize=64))
    assert [row["input_uri"] for row in picked[:200]] == [row["input_uri"] for row in rows[:200]]
    assert len(picked) == 200 + 48
    drawn = [row["reason"] for row in picked if row["thumbnail"] is not None]
    assert (drawn.count("blank"), drawn.count("inverted"), len(drawn)) == (48, 48, 96)
    assert pick_excluded([]) == []
    assert pick_excluded(pa.Table.from_pylist([], rejected_schema()).to_batches()) == []


def test_the_contact_sheet_says_reason_and_file_name():
    rows = rejected_rows([refused(1, input_uri="s3://a/<b>&\u202egnp.exe"), refused(2, "inverted", input_uri=None)])
    svg = figures.contact_sheet(rows)
    assert texts(svg) == ["blank", "<b>&\u00b7gnp.exe", "inverted", "x2"]
    assert svg.count(b"data:image/png;base64,") == 2


def test_long_file_names_are_cut_in_the_middle():
    assert figures.short_name("s3://a/1.2.840.113619.2.55.3.60.dcm") == "1.2.840.1\u2026.3.60.dcm"
    assert figures.short_name("s3://a/hand.png") == "hand.png"


def test_age_figure_shows_splits_with_their_counts_and_the_sexes_that_occur():
    ages = {"train": {"4-6 y": {"F": 3}, "8-10 y": {"F": 1, "M": 2}}, "val": {}, "test": {"unknown": {"M": 1}}}
    found = texts(figures.ages_by_sex(ages))
    assert {"train: 6", "test: 1", "girls", "boys", "6-8", "unknown"} <= set(found)
    assert not {"val: 0", "sex unknown", "2-4"} & set(found)


def test_sex_bars_say_count_and_share():
    found = texts(figures.sex_shares({"train": {"4-6 y": {"F": 3, "M": 1}}}))
    assert {"train", "3 (75 %)", "1 (25 %)"} <= set(found)


def test_spacing_figure_names_sources_and_what_has_none():
    spacing = overview(to_table(RECORDS, case_schema()))["spacing"]
    found = texts(figures.spacing_histogram(spacing))
    assert {"dicom:PixelSpacing: 20", "without spacing, not drawn: 20"} <= set(found)


def test_reason_bars_and_sizes_have_real_text():
    assert {"blank", "1,234", "truncated", "2"} <= set(texts(figures.reason_bars({"blank": 1234, "truncated": 2})))
    sizes = overview(to_table(RECORDS, case_schema()))["sizes"]["megapixels"]["bins"]
    assert {"megapixels", "2", "4"} <= set(texts(figures.megapixel_histogram(sizes)))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.ages_by_sex({"train": {}, "val": {}, "test": {}}),
        lambda: figures.sex_shares({}),
        lambda: figures.spacing_histogram({}),
        lambda: figures.megapixel_histogram([0] * 22),
    ],
)
def test_figures_of_nothing_are_empty_figures(draw):
    assert draw().startswith(b"<svg")


def test_cephalograms_without_age_and_sex_make_a_page():
    rows = [record(k, age_months=None, sex=None, pixel_spacing_mm=0.1, pixel_spacing_source="option") for k in range(8)]
    page = page_of(rows)
    assert "Without an age: 8" in page
    assert "records have an age" not in page
