"""The real service on Ray Serve: the rows of `score`, batches, bad files, limits."""

from __future__ import annotations

import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import ray
from scrape import settled, wait_for

from boneage_ray import __version__
from boneage_ray.archives.files import FilesArchive
from boneage_ray.client import Client, ClientOptions
from boneage_ray.records.schema import from_table, result_schema

pytestmark = pytest.mark.ray

PNG = {"Content-Type": "image/png"}
TOKEN = "correct-horse"  # as in conftest.py


@pytest.fixture(scope="module")
def offline(local_ray, hands, tiny_model, tmp_path_factory):
    """offline(sex, spacing, model) -> file name -> the row that `score` writes."""

    def score(sex=None, spacing=None, model=tiny_model):
        from boneage_ray.scoring.score import ScoreOptions, results, score_archive

        out = str(tmp_path_factory.mktemp("scores"))
        archive = FilesArchive(str(hands[0]), None, sex, spacing)
        score_archive(archive, ScoreOptions(str(hands[0]), [model], out))
        return {row["input_uri"].rsplit("/", 1)[-1]: row for table in results(out) for row in from_table(table)}

    return score


def without_uri(row):
    return {name: value for name, value in row.items() if name != "input_uri"}


def test_a_posted_file_gets_the_very_row_that_score_writes(service, offline, hands):
    expected = offline("M", 0.25)
    scored = [name for name, row in expected.items() if row["status"] == "scored"]
    assert len({expected[name]["age_months"] for name in scored}) > 3
    for name in scored:
        response = service.post(
            "/v1/predict?sex=M&pixel_spacing_mm=0.25", content=(hands[0] / name).read_bytes(), headers=PNG
        )
        row = response.json()
        assert response.status_code == 200
        assert list(row) == result_schema().names
        assert row["input_uri"] == "request"
        assert without_uri(row) == without_uri(expected[name])


def test_an_ensemble_is_served_as_one_model_with_the_rows_that_score_writes(service, offline, hands, tiny_ensemble):
    expected = offline("M", None, tiny_ensemble)
    scored = [name for name, row in expected.items() if row["status"] == "scored"]
    assert len({expected[name]["age_spread_months"] for name in scored}) > 3
    for name in scored:
        response = service.post("/v1/predict?sex=M&model=both", content=(hands[0] / name).read_bytes(), headers=PNG)
        assert without_uri(response.json()) == without_uri(expected[name])


def test_a_form_of_good_and_bad_files_gets_the_rows_that_score_writes(service, offline, hands):
    expected = offline()
    files = [("files", (name, (hands[0] / name).read_bytes())) for name in sorted(expected)]
    rows = service.post("/v1/predict", files=files).json()["rows"]
    assert [row["input_uri"] for row in rows] == sorted(expected)
    assert [without_uri(row) for row in rows] == [without_uri(expected[row["input_uri"]]) for row in rows]
    reasons = {row["reason"] for row in rows} - {None}
    assert {"blank", "truncated", "unsupported_format"} <= reasons


@pytest.mark.parametrize(
    ("kind", "code"), [("blank", "blank"), ("truncated", "truncated"), ("text", "unsupported_format")]
)
def test_an_unusable_file_is_a_problem_with_its_reason(service, hands, kind, code):
    response = service.post("/v1/predict", content=hands[1][kind].read_bytes(), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert response.headers["content-type"] == "application/problem+json"


def test_concurrent_requests_get_their_own_rows(service, hands):
    names = sorted(path.name for path in hands[0].iterdir())[:3] * 8

    def ask(name):
        return service.post("/v1/predict?sex=F", content=(hands[0] / name).read_bytes(), headers=PNG).json()

    alone = {name: ask(name) for name in set(names)}
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, names))
    assert together == [alone[name] for name in names]


def test_ready_healthy_and_its_model_listed(service, tiny_model):
    from boneage_ray import bundle

    assert service.get("/healthz").json() == {"status": "ok"}
    assert service.get("/readyz").json() == {"status": "ready"}
    model, both = service.get("/v1/models").json()["models"]
    assert (model["name"], model["model_sha256"]) == ("demo", bundle.read_manifest(tiny_model)[1])
    assert (model["metrics"], model["members"]) == ({"val_mae_months": 12.5}, 1)
    assert (both["name"], both["members"], both["metrics"]) == ("both", 2, {})
    assert service.get("/openapi.json").json()["info"]["version"] == __version__


def test_without_the_token_nothing_is_answered(service):
    assert service.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_body_over_the_limit_is_refused_by_the_real_server(service):
    response = service.post("/v1/predict", content=b"x" * (2**20 + 1), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_picture_of_what_a_result_rests_on(service, hands):
    name = sorted(path.name for path in hands[0].iterdir())[0]
    response = service.post("/v1/explain?sex=F", content=(hands[0] / name).read_bytes(), headers=PNG)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert response.content.startswith(b"\x89PNG")
    response = service.post("/v1/explain", content=hands[1]["truncated"].read_bytes(), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (422, "truncated")
    response = service.post("/v1/explain?model=both", content=b"1", headers=PNG)
    assert (response.status_code, response.json()["code"]) == (422, "not_explainable")


@pytest.mark.parametrize("given", [None, "case-7.a", "Doe^Jane"])
def test_an_answer_has_one_id_and_the_line_of_its_request_shows_it(service, given):
    answer = service.get("/no/such/place", headers={"X-Request-Id": given} if given else {})
    (sent,) = answer.headers.get_list("x-request-id")
    assert given in (None, sent)
    shown = sha256(b"Doe^Jane").hexdigest()[:32] if given == "Doe^Jane" else sent
    line = re.compile(rf"GET other 404 in [\d.]+ ms, request {re.escape(shown)}$", re.MULTILINE)
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    for _ in range(100):
        texts = [log.read_text("utf-8", "replace") for log in logs.glob("worker-*.err")]
        if any(line.search(text) for text in texts):
            break
        time.sleep(0.1)
    assert sum(len(line.findall(text)) for text in texts) == 1


def test_the_client_gets_the_rows_of_the_real_server(service, hands, tls):
    good, damaged = (hands[1][kind] for kind in ("good", "truncated"))
    row = service.post("/v1/predict?sex=F", content=good.read_bytes(), headers=PNG).json()
    options = ClientOptions(transport=httpx.HTTPTransport(verify=ssl.create_default_context(cafile=tls.certificate)))
    with Client(str(service.base_url), TOKEN, options) as client:
        assert client.predict(good, sex="F").model_dump() == row
        rows = client.predict_several({"good": good, "damaged": damaged}, sex="F")
        assert [(r.input_uri, r.age_months, r.reason) for r in rows] == [
            ("good", row["age_months"], None),
            ("damaged", None, "truncated"),
        ]
        assert [info.name for info in client.models()] == ["demo", "both"]


def test_prometheus_finds_what_was_served(service, hands):
    good, damaged = (hands[1][kind].read_bytes() for kind in ("good", "truncated"))
    before = settled()
    for body in (good, good, damaged):
        service.post("/v1/predict?model=demo", content=body, headers=PNG)
    service.get("/no/such/place")
    now = wait_for(
        {
            ("ray_boneage_serve_requests_total", "/v1/predict", "200"): 2,
            ("ray_boneage_serve_requests_total", "/v1/predict", "422"): 1,
            ("ray_boneage_serve_requests_total", "other", "404"): 1,
            ("ray_boneage_serve_request_seconds_count", "/v1/predict"): 3,
            ("ray_boneage_serve_images_total", "demo", "scored", "none"): 2,
            ("ray_boneage_serve_images_total", "demo", "failed", "truncated"): 1,
            ("ray_boneage_serve_batch_images_bucket", "1.0"): 3,
        },
        before,
    )
    assert now["ray_boneage_serve_open_requests",] == 0
