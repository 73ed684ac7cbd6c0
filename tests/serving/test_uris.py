"""Files that a request names: which the service reads, which it does not, and that the row is that of the same file sent."""

from __future__ import annotations

import pytest
from fake_model import PNG, problem

from boneage_ray import storage
from boneage_ray.errors import UsageError
from boneage_ray.serving.bodies import BodyLimits
from boneage_ray.serving.uris import known_prefixes
from boneage_ray.serving.web import WebConfig


@pytest.fixture
def by_uri(ask, tmp_path):
    """by_uri(uri, prefix=..., limit=..., query="", **said) -> response; hands/a.png and secret.png are in the folder."""
    folder = tmp_path / "hands"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"12345")
    (tmp_path / "secret.png").write_bytes(b"1")

    def send(uri, prefix=None, limit=1000, query="", **said):
        config = WebConfig(bodies=BodyLimits(limit), allowed_uris=known_prefixes([prefix or str(folder)]))
        return ask("POST", f"/v1/predict{query}", config, json={"uri": uri} | said)

    send.folder = str(folder)
    return send


def test_a_local_file_gets_the_row_of_the_same_file_sent(by_uri, ask):
    uri = f"{by_uri.folder}/a.png"
    row = by_uri(uri, sex="M", pixel_spacing_mm=0.2, chronological_age_months=150).json()
    query = "?sex=M&pixel_spacing_mm=0.2&chronological_age_months=150"
    sent = ask("POST", f"/v1/predict{query}", content=b"12345", headers=PNG).json()
    assert row == sent | {"input_uri": uri}
    assert by_uri(uri, query="?sex=M", model="fake", pixel_spacing_mm=0.2, chronological_age_months=150).json() == row


def test_an_object_of_s3_is_read(by_uri, s3_bucket):
    storage.write_bytes(f"{s3_bucket}/hands/left hand%2e.png", b"123")
    row = by_uri(f"{s3_bucket}/hands/left hand%2e.png", s3_bucket).json()
    assert (row["status"], row["age_months"]) == ("scored", 3.0)
    answer = by_uri(f"{s3_bucket}/hands/none.png", s3_bucket)
    assert problem(answer) == (422, "not_found")
    assert (answer.json()["step"], "127.0.0.1" in answer.text) == ("read", False)
    assert problem(by_uri(f"{s3_bucket}-2/a.png", s3_bucket)) == (403, "uri_not_allowed")
    assert problem(by_uri(f"{s3_bucket}/hands/left hand%2e.png", s3_bucket, limit=2)) == (413, "body_too_large")


@pytest.mark.parametrize(
    "uri",
    [
        *("{}/../secret.png", "{}/./a.png", "{}//a.png", "{}/", "{}", "{}-2/a.png", "{}/a.png/", "{}/\\..\\secret.png"),
        *("{}/out.png", "{}/up/secret.png", "{}/a.png\x00", "file://{}/a.png", "/etc/passwd", "etc/passwd", "~/a.png"),
        *("s3://bucket/a.png", "http://127.0.0.1/a.png", "{}/a.png\n"),
    ],
)
def test_what_is_not_below_a_prefix_is_not_read(by_uri, tmp_path, model, uri):
    (tmp_path / "hands" / "out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "hands" / "up").symlink_to(tmp_path)
    (tmp_path / "hands-2").mkdir()
    (tmp_path / "hands-2" / "a.png").write_bytes(b"1")
    assert problem(by_uri(uri.format(by_uri.folder))) == (403, "uri_not_allowed")
    assert model.seen == []


@pytest.mark.parametrize("name", ["none.png", "%2e%2e/secret.png", "sub", "a.png/b", "x" * 300])
def test_what_is_no_file_is_not_found(by_uri, tmp_path, name):
    (tmp_path / "hands" / "sub").mkdir()
    assert problem(by_uri(f"{by_uri.folder}/{name}")) == (422, "not_found")


def test_without_a_prefix_nothing_is_read(ask, tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    answer = ask("POST", "/v1/predict", json={"uri": f"{tmp_path}/a.png"})
    assert problem(answer) == (403, "uri_not_allowed")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b"{", "bad_body"),
        (b"[]", "bad_body"),
        (b"{}", "bad_uri"),
        (b'{"uri": 3}', "bad_uri"),
        (b'{"uri": "/a", "sex": "f"}', "bad_sex"),
        (b'{"uri": "/a", "gender": "F"}', "unknown_parameter"),
        (b'{"uri": "/a", "pixel_spacing_mm": NaN}', "bad_pixel_spacing_mm"),
        (b'{"uri": "/a", "model": "other"}', "unknown_model"),
        (b'{"uri": "\\ud800"}', "bad_body"),
        (b"x" * 70000, "body_too_large"),
    ],
)
def test_a_wrong_body_is_named(ask, body, code):
    answer = ask("POST", "/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer) == ({"empty_body": 400, "body_too_large": 413}.get(code, 422), code)


def test_what_is_said_twice_is_refused(by_uri):
    assert problem(by_uri(f"{by_uri.folder}/a.png", query="?sex=F", sex="F")) == (422, "bad_sex")


@pytest.mark.parametrize("prefix", ["hands", "s3://", "http://a/b", "/", "/a/../b", "s3://a//b", "", "file:///a"])
def test_a_prefix_that_names_no_folder_is_refused(prefix):
    with pytest.raises(UsageError, match="--allow-uri"):
        known_prefixes([prefix])


def test_a_prefix_ends_in_one_slash():
    assert known_prefixes(["s3://a", "/data/hands/"]) == ("s3://a/", "/data/hands/")
