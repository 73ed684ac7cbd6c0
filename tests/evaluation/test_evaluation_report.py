"""The page: complete in itself, escaped, honest in its status box."""

import json
import re
from functools import cache
from html.parser import HTMLParser

import pytest
from made_up_predictions import many, predictions

from boneage_ray.evaluation.page import Number, Page, PagePicture, PageStatus, PageTable, Section, render_page
from boneage_ray.tasks.age.findings.analysis import analyse_ages
from boneage_ray.tasks.age.findings.page import age_page

COMMAND = "boneage evaluate --model M --data D --split test --out E"
NASTY = '</script><script>alert("1")</script>'
HISTORY = [{"epoch": k, "train_loss": 3 / k, "val_loss": 4 / k, "val_mae_months": 20 / k} for k in (1, 2, 3)]


class Reader(HTMLParser):
    """Collects the tags and their attributes, and the text of the status box and of the script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.script, self.inside = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.script += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def small_page(**changes):
    parts = {
        "title": "A page",
        "facts": {"Model": "m"},
        "status": PageStatus("good", "Fine"),
        "numbers": [Number("n", "1")],
        "sections": [],
    }
    return render_page(Page(**{**parts, **changes}))


def page_of(cases, median=120.0, history=()):
    return age_page(analyse_ages(cases, median), cases, {"Model": "m 9f0c"}, {"m": history}, COMMAND)


@cache
def usual_page(count, with_history=False):
    """The page of so many made-up cases, drawn once for all tests that read it."""
    return page_of(many(count), history=HISTORY if with_history else ())


def status_of(page):
    return re.search(r'<div class="status (\w+)".*?<strong>(.*?)</strong>(.*?)</div>', page, re.DOTALL).groups()


def test_everything_from_outside_is_escaped():
    page = small_page(
        title=NASTY,
        facts={NASTY: NASTY},
        status=PageStatus("bad", NASTY, [NASTY]),
        numbers=[Number(NASTY, NASTY, NASTY)],
        sections=[
            Section(
                NASTY,
                [NASTY],
                [PageTable([NASTY], [[NASTY]], NASTY)],
                [PagePicture(b"<svg viewBox='0 0 1 1'></svg>", f'"{NASTY}', NASTY)],
                NASTY,
            )
        ],
        data={NASTY: "<!-- </SCRIPT>"},
    )
    read = Reader(page)
    assert [attributes["type"] for attributes in read.all("script")] == ["application/json"]
    assert page.count("alert(") == page.count("&lt;script&gt;alert(") + page.count("\\u003cscript>alert(")
    assert json.loads(read.script) == {NASTY: "<!-- </SCRIPT>"}
    assert read.all("svg")[0]["aria-label"] == f'"{NASTY}'


def test_the_page_loads_nothing_and_runs_nothing():
    read = Reader(usual_page(120, with_history=True))
    outside = [
        value
        for _, attributes in read.tags
        for key, value in attributes.items()
        if key in ("src", "href", "xlink:href", "action") and not value.startswith(("#", "data:"))
    ]
    assert outside == []
    assert not {"link", "iframe", "object", "form"} & {tag for tag, _ in read.tags}
    assert not [key for _, attributes in read.tags for key in attributes if key.startswith("on")]
    policy = next(a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_banner_the_facts_and_five_numbers_are_there():
    page = usual_page(120)
    assert "For research, not a medical device" in page
    assert "<dt>Model</dt><dd>m 9f0c</dd>" in page
    assert "<dt>Cases</dt><dd>120</dd>" in page
    assert page.count('class="label"') == 5


def test_every_picture_has_words_and_every_id_is_used_once():
    cases = predictions([100.0, 150.0, 190.0] * 40, [103.0, 141.0, 195.0] * 40, direct=("three", "four"))
    read = Reader(page_of(cases, history=HISTORY))
    labels = [attributes["aria-label"] for attributes in read.all("svg")]
    assert len(labels) == len(set(labels)) == 9  # scatter, histogram, residuals, boxes, four confusions, learning
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    # Matplotlib repeats a marker's definition inside one figure; between figures nothing may clash.
    owners = {}
    figure = None
    for tag, attributes in read.tags:
        figure = attributes["aria-label"] if tag == "svg" else figure
        if "id" in attributes:
            owners.setdefault(attributes["id"], set()).add(figure)
    assert ids
    assert [name for name, figures in owners.items() if len(figures) > 1] == []


def test_every_section_with_figures_says_its_command():
    page = usual_page(120, with_history=True)
    sections = re.findall(r"<section>.*?</section>", page, re.DOTALL)
    assert len(sections) == 7
    with_pictures = [section for section in sections if "<figure" in section]
    assert len(with_pictures) == 5
    assert all(f"<code>{COMMAND}</code>" in section for section in with_pictures)


def test_embedded_json_is_the_analysis():
    found = json.loads(Reader(usual_page(30)).script)
    assert found == {"facts": {"Model": "m 9f0c"}, "command": COMMAND, "analysis": analyse_ages(many(30), 120.0)}


def test_data_that_is_not_json_is_refused():
    with pytest.raises(ValueError, match="JSON compliant"):
        small_page(data={"mae": float("nan")})


def test_figures_take_the_text_colour_of_the_page():
    page = usual_page(30)
    assert "currentColor" in page
    assert "#123456" not in page


def test_a_png_becomes_a_data_uri_with_alternative_text():
    picture = PagePicture(b"\x89PNG\r\n\x1a\n", 'left "hand"', "caption")
    read = Reader(small_page(sections=[Section("s", pictures=[picture])]))
    assert read.all("img") == [{"alt": 'left "hand"', "src": "data:image/png;base64,iVBORw0KGgo="}]


def test_without_a_head_only_the_thresholded_stage_is_shown():
    page = usual_page(120)
    assert "from the predicted age" in page
    assert "own head" not in page


def test_without_history_there_is_no_training_section():
    assert "<h2>Training</h2>" not in usual_page(30)
    assert "<h2>Training</h2>" in usual_page(30, with_history=True)


def test_status_is_good_for_a_good_model():
    level, headline, _ = status_of(usual_page(400))
    assert (level, headline) == ("good", "Evaluated, no caution raised")


def test_status_is_bad_when_guessing_is_as_good():
    true = [100.0, 140.0] * 100
    level, headline, rest = status_of(page_of(predictions(true, [120.0] * 200), 120.0))
    assert (level, headline) == ("bad", "No better than guessing")
    assert "errs by 20.0 months" in rest


def test_status_cautions_of_few_cases_and_of_a_gap_between_the_sexes():
    level, _, rest = status_of(page_of(predictions([60.0, 180.0] * 20, [72.0, 182.0] * 20)))
    assert level == "caution"
    assert "few cases (40)" in rest
    assert "The error is larger for girls" in rest
    assert "+10.00 months" in rest


def test_status_cautions_of_cases_that_were_learnt_from():
    found = analyse_ages(many(400), 120.0) | {"learnt": {"cases": 400, "of": 400, "unknown": []}}
    page = age_page(found, many(400), {}, {}, COMMAND)
    assert "The model learnt from all of these pictures" in status_of(page)[2]


def test_status_cautions_when_better_than_guessing_is_not_certain():
    true = [100.0, 140.0] * 100
    errors = [5.0, 5.0, -34.0, 34.0] * 50
    cases = predictions(true, [t + e for t, e in zip(true, errors, strict=True)])
    level, _, rest = status_of(page_of(cases, 120.0))
    assert level == "caution"
    assert "not certain that the model is better than guessing" in rest


def test_one_case_makes_a_page():
    page = page_of(predictions([100.0], [90.0]))
    assert "9.1" not in page
    assert "10.0 months" in page
    assert "not defined" in page


def test_a_page_of_the_largest_published_split_stays_below_5_mb():
    assert len(page_of(many(12_611), history=HISTORY * 40).encode()) < 1_500_000
