"""The page at `/` and the interface at `/docs` in a browser, over models with known answers."""

from __future__ import annotations

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import run_chromium, serve_app, silent_page
from page_model import HAND, HEAD, PageModel
from pictures import encoded

from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.serving.tokens import token_hash
from boneage_ray.serving.web import WebConfig, create_app

HAND_FILE = {"name": "Qvorbeck.png", "mimeType": "image/png", "buffer": encoded(HAND.image)}
CUT_FILE = {"name": "cut.png", "mimeType": "image/png", "buffer": encoded(HAND.image)[:5000]}
HEAD_FILE = {"name": "head.png", "mimeType": "image/png", "buffer": encoded(HEAD.image)}
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with run_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def models():
    return PageModel("hand", "demo"), PageModel("head", "cephalogram-light")


@pytest.fixture(scope="module")
def address(models):
    with serve_app(create_app([model.served() for model in models], WebConfig())) as address:
        yield address


@pytest.fixture
def open_page(browser, address, request):
    """The page, ready to take files; options are those of a browser context."""
    with silent_page(browser, address, **getattr(request, "param", {})) as page:
        page.goto(address)
        page.get_by_text("Bone age from a radiograph").wait_for()
        yield page


def choose(page, *files, sex=None):
    page.get_by_label("Choose files").set_input_files(files)
    for file in files:
        page.locator("#chosen").get_by_text(file["name"]).wait_for()
    if sex:
        page.get_by_label(sex, exact=True).check(force=True)


def read(page):
    """Send, and wait for the end."""
    page.locator("#send").click()
    page.locator("#status", has_text=re.compile(r"result")).wait_for()


def downloaded(page, name):
    with page.expect_download() as found:
        page.get_by_role("button", name=name).click()
    return found.value.suggested_filename, found.value.path().read_bytes()


def test_a_hand_goes_from_the_file_to_its_answer_and_to_what_one_takes_away(open_page, models):
    page, model = open_page, models[0]
    choose(page, HAND_FILE)
    model.seen.clear()
    page.locator("#send").click()
    assert page.locator("#sex-error").inner_text() == "Choose the sex, or say that it is unknown."
    assert page.evaluate("document.activeElement.name") == "sex"
    assert model.seen == []  # nothing is sent without it
    page.get_by_label("Female").check(force=True)
    page.get_by_label("years").fill("7")
    page.get_by_label("months").fill("1")
    read(page)
    assert {(item.uri, item.sex, item.chronological_age_months) for item in model.seen} == {("request", "F", 85.0)}
    assert page.locator(".value").inner_text() == "9 y 7 m"
    assert page.locator(".interval").inner_text() == "7 y 9 m to 11 y 8 m, 90 % interval"
    axis = page.locator(".growth")
    said = "bone age 9 y 7 m; interval 7 y 9 m to 11 y 8 m, 90 %; chronological age 7 y 1 m"
    assert axis.get_attribute("aria-label") == f"Growth axis in years: {said}"
    low, bone_age, high = (
        float(axis.locator(mark).get_attribute(name))
        for mark, name in ((".band", "x"), (".age", "cx"), (".band", "width"))
    )
    assert 14 < low < bone_age < low + high < axis.bounding_box()["width"]
    assert (bone_age - low) / high == pytest.approx((115 - 93) / (140 - 93), abs=0.01)
    assert page.locator(".flags li").inner_text() == "The bone age is clearly above the chronological age. advanced"
    facts = page.locator(".facts").inner_text()
    assert "female, as you said" in facts
    assert "30 months above the chronological age" in facts
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as text").click()
    page.get_by_text("is in the clipboard").wait_for()
    text = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert text[:2] == ["Qvorbeck.png", "Bone age 9 y 7 m (7 y 9 m to 11 y 8 m, 90 %)"]
    assert text[-1].startswith("NOT FOR DIAGNOSIS")
    name, data = downloaded(page, "Download JSON")
    row = json.loads(data)
    assert (name, row["input_uri"], row["age_months"], row["flags"][-1]) == (
        "Qvorbeck.json",
        "Qvorbeck.png",
        115.0,
        "advanced",
    )
    assert downloaded(page, "Download PNG")[1].startswith(b"\x89PNG")


def test_the_overlay_lies_where_it_belongs_and_its_opacity_is_the_readers(open_page):
    choose(open_page, HAND_FILE, sex="Unknown")
    read(open_page)
    base, over = (open_page.locator(f".frame img.{name}").bounding_box() for name in ("base", "over"))
    # The square of the prepared image: as wide as the picture is high, with the picture in its middle.
    assert over["height"] == pytest.approx(base["height"], abs=1.5)
    assert over["width"] == pytest.approx(base["height"], abs=1.5)
    assert over["x"] + over["width"] / 2 == pytest.approx(base["x"] + base["width"] / 2, abs=1.5)
    slider = open_page.get_by_label("Opacity of the overlay")
    slider.fill("30")
    assert open_page.locator(".frame img.over").evaluate("image => image.style.opacity") == "0.3"


def test_of_several_files_a_refused_one_has_its_reason_in_words_and_the_others_their_answers(open_page):
    choose(open_page, HAND_FILE, CUT_FILE, sex="Male")
    assert open_page.locator("#send").inner_text() == "Read 2 radiographs"
    read(open_page)
    assert open_page.locator("#status").inner_text() == "1 of 2 radiographs have a result."
    refused = open_page.locator(".card", has_text="cut.png")
    assert refused.locator("p").first.inner_text() == "No result. The file ends too early."
    assert "(truncated)" in refused.inner_text()
    name, data = downloaded(open_page, "Download all as JSON")
    assert [(each["input_uri"], each["status"]) for each in json.loads(data)] == [
        ("Qvorbeck.png", "scored"),
        ("cut.png", 422),
    ]
    assert name == "results.json"


def test_what_was_said_of_one_selection_is_not_sent_with_the_next(open_page):
    choose(open_page, HAND_FILE, sex="Male")
    read(open_page)
    make = "name => { const files = new DataTransfer(); files.items.add(new File(['x'], name)); return files; }"
    dropped = open_page.evaluate_handle(make, "dropped.dcm")
    open_page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    open_page.locator("#chosen").get_by_text("dropped.dcm").wait_for()
    assert open_page.locator("#chosen li").count() == 1
    assert open_page.locator("[name=sex]:checked").count() == 0


def test_a_dicom_file_that_no_browser_shows_is_shown_by_the_server(open_page):
    dicom = encode_dicom(HAND.image, DicomTags(seed=1, bits=8))
    choose(open_page, {"name": "hand.dcm", "mimeType": "application/dicom", "buffer": dicom}, sex="Unknown")
    read(open_page)
    picture = open_page.get_by_role("img", name="Picture of the server")
    assert picture.evaluate("image => image.naturalWidth") == 900
    assert open_page.locator(".frame img").count() == 1


def test_a_head_has_its_points_to_hover_and_to_walk_through_and_the_trace_of_its_stage(open_page):
    page = open_page
    page.get_by_label("Model").select_option("head")
    assert not page.get_by_role("group", name="Sex").is_visible()
    choose(page, HEAD_FILE)
    page.get_by_label("Pixel spacing").fill(f"{HEAD.pixel_spacing_mm:.4f}")
    read(page)
    assert page.locator(".value").inner_text() == "CS5"
    points = page.locator(".frame g")
    assert points.count() == 32
    sella = page.get_by_role("img", name="sella,")
    x, y = HEAD.facial[0]
    frame, dot = page.locator(".frame").bounding_box(), sella.locator(".dot").bounding_box()
    across = HEAD.image.shape[1]
    assert (dot["x"] + dot["width"] / 2 - frame["x"]) / frame["width"] == pytest.approx((x + 0.5) / across, abs=0.004)
    assert (dot["y"] + dot["height"] / 2 - frame["y"]) / frame["height"] == pytest.approx((y + 0.5) / 400, abs=0.004)
    sella.hover()
    assert page.locator("figcaption strong").inner_text() == "sella"
    points.first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("figcaption").inner_text().startswith("C2 inferior middle x ")
    page.get_by_text("How the stage came about").click()
    cells = page.get_by_role("region", name="How the stage came about").locator("tr").last.locator("td")
    assert cells.all_inner_texts() == ["stage", "", "McNamara & Franchi 2018", "CS5"]
    page.get_by_text("Measurements", exact=True).click()
    measured = page.get_by_role("region", name="Measurements").inner_text()
    assert re.search(r"C2 depth\s+\d+\.\d\d mm", measured)


def test_the_keyboard_alone_goes_from_a_synthetic_hand_to_its_answer(open_page):
    page = open_page

    def tab_to(script):
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate(f"(({script}))(document.activeElement)"):
                return
        pytest.fail(f"the Tab key does not reach {script}")

    tab_to("at => at.textContent === 'Use a synthetic hand'")
    page.keyboard.press("Enter")
    page.locator("#chosen li").wait_for()
    assert page.locator("[name=sex]:checked").get_attribute("value") == "M"
    assert (page.get_by_label("years").input_value(), page.get_by_label("months").input_value()) == ("10", "0")
    page.wait_for_function("document.activeElement.id === 'send'")
    page.keyboard.press("Enter")
    page.get_by_text("The result is there.").wait_for()
    assert page.evaluate("document.activeElement.id") == "results-title"
    tab_to("at => at.type === 'range'")
    page.keyboard.press("Home")
    assert page.locator(".frame img.over").evaluate("image => image.style.opacity") == "0"
    tab_to("at => at.textContent === 'Download PNG'")


@pytest.mark.parametrize(
    "open_page", [{}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"], indirect=True
)
def test_axe_finds_no_fault_before_and_after_an_answer(open_page):
    page = open_page
    choose(page, HAND_FILE, CUT_FILE)
    page.locator("#send").click()  # with an error beside a field
    failed = Axe().run(page)
    page.get_by_label("Female").check(force=True)
    page.get_by_label("years").fill("7")
    read(page)
    after = Axe().run(page)
    page.get_by_label("Model").select_option("head")
    choose(page, HEAD_FILE)
    read(page)
    for summary in page.locator("summary").all():
        summary.click()
    head = Axe().run(page)
    found = [result.generate_report() for result in (failed, after, head) if result.violations_count]
    assert "\n".join(found) == ""
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0  # nothing is cut off at the side


def test_a_server_with_tokens_is_asked_with_one_that_only_this_page_remembers(browser, models):
    app = create_app([model.served() for model in models], WebConfig(token_hashes=(token_hash("right"),)))
    with serve_app(app) as address, silent_page(browser, address) as page:
        page.goto(address)
        page.get_by_label("Access token").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("This token is not accepted.").wait_for()
        page.get_by_label("Access token").fill("right")
        page.keyboard.press("Enter")
        page.get_by_text("Bone age from a radiograph").wait_for()
        assert not page.get_by_label("Access token").is_visible()
        choose(page, HAND_FILE, sex="Female")
        read(page)
        assert page.locator(".value").inner_text() == "9 y 7 m"
        assert page.get_by_role("button", name="Download PNG").is_visible()
        page.reload()
        page.get_by_label("Access token").wait_for()


def test_what_a_gateway_answers_is_said_in_words_and_a_busy_server_is_asked_again(open_page):
    choose(open_page, HAND_FILE, sex="Female")
    open_page.route("**/v1/predict*", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
    read(open_page)
    assert "The server answered 502 Bad Gateway." in open_page.locator(".refusal").inner_text()
    open_page.unroute("**/v1/predict*")
    busy = {"status": 503, "headers": {"Retry-After": "0.1"}}
    open_page.route("**/v1/predict*", lambda route: route.fulfill(**busy), times=1)
    read(open_page)
    assert open_page.locator(".value").inner_text() == "9 y 7 m"


def test_the_interface_is_shown_without_anything_from_elsewhere(browser, address):
    with silent_page(browser, address) as page:
        page.goto(f"{address}/docs")
        page.get_by_text("/v1/predict", exact=False).first.wait_for()
        page.locator("[id*=healthz] .opblock-summary-control").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table").get_by_text('"ok"').wait_for()
