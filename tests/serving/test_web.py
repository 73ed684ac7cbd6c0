"""The HTTP interface over a fake model: routes, parameters, limits, problems, tokens."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fake_model import PNG, FakeModel, problem, served

from boneage_ray.records.schema import result_schema
from boneage_ray.serving.bodies import BodyLimits
from boneage_ray.serving.problems import OverloadedError, UnavailableError
from boneage_ray.serving.schema import ResultRow
from boneage_ray.serving.tokens import token_hash
from boneage_ray.serving.web import WebConfig, create_app


def test_the_row_over_http_has_the_columns_of_the_result_schema():
    assert list(ResultRow.model_fields) == result_schema().names


def test_a_raw_body_answers_one_row_with_what_the_query_says(ask, model):
    response = ask(
        "POST", "/v1/predict?sex=M&pixel_spacing_mm=0.2&chronological_age_months=150", content=b"12345", headers=PNG
    )
    row = response.json()
    assert response.status_code == 200
    assert (row["input_uri"], row["age_months"], row["sex"], row["sex_source"]) == ("request", 5.0, "M", "option")
    assert (model.seen[0].pixel_spacing_mm, model.seen[0].pixel_spacing_source) == (0.2, "option")
    assert model.seen[0].chronological_age_months == 150.0


def test_nothing_said_is_unknown_never_female(ask, model):
    ask("POST", "/v1/predict", content=b"1", headers=PNG)
    item = model.seen[0]
    assert (item.sex, item.sex_source, item.pixel_spacing_mm, item.pixel_spacing_source) == (
        None,
        "unknown",
        None,
        None,
    )


def test_a_form_answers_a_row_for_every_file_in_order(ask):
    files = [("a", ("one.png", b"1")), ("a", ("two.png", b"bad")), ("b", ("three.png", b"333"))]
    rows = ask("POST", "/v1/predict", files=files).json()["rows"]
    assert [(r["input_uri"], r["status"], r["age_months"]) for r in rows] == [
        ("one.png", "scored", 1.0),
        ("two.png", "failed", None),
        ("three.png", "scored", 3.0),
    ]
    assert rows[1]["reason"] == "truncated"


def test_the_name_of_an_uploaded_file_is_answered_and_logged_nowhere(ask, caplog, capfd):
    """A file name is often that of a patient."""
    caplog.set_level("DEBUG")
    files = [("a", ("Qvorbeck_Zyxwina.png", body)) for body in (b"1", b"bad", b"bug")]
    answer = ask("POST", "/v1/predict", files=files)
    assert answer.text.count("Qvorbeck_Zyxwina.png") == 3
    ask("POST", "/v1/predict", models=[FakeModel(error=KeyError("Qvorbeck"))], files=files)
    assert "Qvorbeck" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "kind", ["image/png", "image/jpeg; q=1", "image/tiff", "IMAGE/BMP", "application/dicom", "application/octet-stream"]
)
def test_the_content_types_of_radiographs_are_taken(ask, kind):
    assert ask("POST", "/v1/predict", content=b"1", headers={"Content-Type": kind}).status_code == 200


def test_a_body_without_a_content_type_is_bytes(ask):
    assert ask("POST", "/v1/predict", content=b"1").status_code == 200


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("sex=f", "bad_sex", "sex=f"),
        ("sex=", "bad_sex", "sex="),
        ("pixel_spacing_mm=0", "bad_pixel_spacing_mm", "pixel_spacing_mm=0"),
        ("pixel_spacing_mm=-1", "bad_pixel_spacing_mm", "-1"),
        ("chronological_age_months=1441", "bad_chronological_age_months", "1441"),
        ("pixel_spacing_mm=nan", "bad_pixel_spacing_mm", "nan"),
        ("pixel_spacing_mm=fine", "bad_pixel_spacing_mm", "fine"),
        ("model=other", "unknown_model", "served: fake"),
        ("gender=F", "unknown_parameter", "gender"),
    ],
)
def test_a_wrong_parameter_is_422_and_named(ask, model, query, code, said):
    response = ask("POST", f"/v1/predict?{query}", content=b"1", headers=PNG)
    assert problem(response) == (422, code)
    assert said in response.json()["detail"]
    assert model.seen == []


def test_an_unusable_file_is_422_with_its_reason_code(ask):
    response = ask("POST", "/v1/predict", content=b"bad", headers=PNG)
    assert problem(response) == (422, "truncated")
    assert (response.json()["step"], response.json()["detail"]) == ("decode", "why")


def test_our_own_fault_in_a_row_is_500(ask):
    assert problem(ask("POST", "/v1/predict", content=b"bug", headers=PNG)) == (500, "internal_error")


def test_an_unforeseen_error_is_a_problem_that_quotes_nothing(ask):
    response = ask("POST", "/v1/predict", models=[FakeModel(error=KeyError("secret"))], content=b"1", headers=PNG)
    assert problem(response) == (500, "internal_error")
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/nope", (404, "not_found")), ("GET", "/v1/predict", (405, "method_not_allowed"))],
)
def test_a_wrong_route_is_a_problem(ask, method, path, expected):
    assert problem(ask(method, path)) == expected


def test_405_says_what_is_allowed(ask):
    assert ask("GET", "/v1/predict").headers["allow"] == "POST"


def test_a_content_type_that_is_no_radiograph_is_415(ask):
    response = ask("POST", "/v1/predict", content=b"a=b", headers={"Content-Type": "text/plain"})
    assert problem(response) == (415, "unsupported_media_type")
    assert "image/png" in response.json()["detail"]


def test_an_empty_body_is_400(ask):
    assert problem(ask("POST", "/v1/predict", headers=PNG)) == (400, "empty_body")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no form at all"),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="sex"\r\n\r\nF\r\n--b--\r\n'),
    ],
    ids=["no boundary", "no form", "no file", "a field instead of a file"],
)
def test_a_broken_form_is_400(ask, kind, body):
    assert problem(ask("POST", "/v1/predict", content=body, headers={"Content-Type": kind})) == (400, "bad_form")


def stream(chunks):
    async def send():
        for _ in range(chunks):
            yield b"x" * 100

    return send()


def test_a_body_over_the_limit_is_413_also_when_it_does_not_say_so(ask, model):
    config = WebConfig(bodies=BodyLimits(999))
    assert problem(ask("POST", "/v1/predict", config, content=b"x" * 1000, headers=PNG)) == (413, "body_too_large")
    assert problem(ask("POST", "/v1/predict", config, content=stream(10), headers=PNG)) == (413, "body_too_large")
    files = {"f": ("a.png", b"x" * 1000)}
    assert problem(ask("POST", "/v1/predict", config, files=files)) == (413, "body_too_large")
    assert model.seen == []
    assert ask("POST", "/v1/predict", config, content=b"x" * 999, headers=PNG).json()["age_months"] == 999.0


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic b25l", 401),
        ("Bearer one ", 200),
        ("Bearer one", 200),
        ("Bearer two", 200),
    ],
)
def test_with_tokens_only_their_bearers_get_in(ask, header, status):
    config = WebConfig(token_hashes=(token_hash("one"), token_hash("two")))
    headers = {"Authorization": header} if header else {}
    # A wrong parameter must not be told to one who may not ask.
    wrong = ask("POST", "/v1/predict?sex=wrong", config, content=b"1", headers=PNG | headers)
    assert wrong.status_code == (401 if status == 401 else 422)
    response = ask("GET", "/v1/models", config, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert problem(response) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


def test_health_needs_no_token(ask):
    config = WebConfig(token_hashes=(token_hash("one"),))
    assert ask("GET", "/healthz", config).json() == {"status": "ok"}
    assert ask("GET", "/readyz", config).json() == {"status": "ready"}


@pytest.mark.parametrize("error", [None, UnavailableError()])
def test_not_ready_until_every_model_is(ask, error):
    late = FakeModel("late", error)
    late.is_ready = False
    response = ask("GET", "/readyz", models=[FakeModel(), late])
    assert problem(response) == (503, "unavailable")
    assert response.headers["retry-after"] == "2"


def test_a_busy_model_is_ready(ask):
    assert ask("GET", "/readyz", models=[FakeModel(error=OverloadedError())]).status_code == 200


def test_models_are_listed_and_chosen_by_name_the_first_is_the_default(ask):
    models = [FakeModel("first"), FakeModel("second")]
    listed = ask("GET", "/v1/models", models=models).json()["models"]
    assert [m["name"] for m in listed] == ["first", "second"]
    assert listed[0] == {
        "name": "first",
        "model_sha256": "0" * 64,
        "recipe": "demo",
        "task": "age",
        "summary": "s",
        "members": 1,
        "site": None,
        "metrics": {"val_mae_months": 9.0},
    }
    answers = [ask("POST", f"/v1/predict{q}", models=models, content=b"1", headers=PNG) for q in ("", "?model=second")]
    assert [a.json()["model"] for a in answers] == ["first", "second"]


def test_an_overloaded_model_is_503_with_retry_after_also_within_a_form(ask):
    models = [FakeModel(error=OverloadedError())]
    for request in ({"content": b"1", "headers": PNG}, {"files": [("f", ("a", b"1")), ("f", ("b", b"2"))]}):
        response = ask("POST", "/v1/predict", models=models, **request)
        assert problem(response) == (503, "overloaded")
        assert response.headers["retry-after"] == "2"


def test_a_model_that_does_not_answer_in_time_is_503(ask, model):
    model.gate = asyncio.Event()
    response = ask("POST", "/v1/predict", WebConfig(predict_timeout_s=0.05), content=b"1", headers=PNG)
    assert problem(response) == (503, "unavailable")


def test_more_requests_than_fit_are_refused_and_the_next_ones_served(model):
    app = create_app([served(model)], WebConfig(max_requests=2))

    async def scene():
        model.gate = asyncio.Event()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            first = [asyncio.create_task(client.post("/v1/predict", content=b"1", headers=PNG)) for _ in range(2)]
            while len(model.seen) < 2:
                await asyncio.sleep(0.01)
            refused = await client.post("/v1/predict", content=b"1", headers=PNG)
            model.gate.set()
            return (
                [r.status_code for r in await asyncio.gather(*first)],
                refused,
                await client.post("/v1/predict", content=b"1"),
            )

    served_ones, refused, afterwards = asyncio.run(scene())
    assert served_ones == [200, 200]
    assert problem(refused) == (503, "overloaded")
    assert afterwards.status_code == 200


def test_the_documentation_names_the_body_types_and_the_token(ask):
    spec = ask("GET", "/openapi.json").json()
    post = spec["paths"]["/v1/predict"]["post"]
    assert {"image/png", "application/dicom", "multipart/form-data"} <= set(post["requestBody"]["content"])
    assert {"200", "400", "401", "403", "406", "408", "413", "415", "422", "429", "503"} == set(post["responses"])
    assert spec["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
