"""Tokens of the service from a file of hashes: who gets in, how often, and what a changed file does."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import httpx
import pytest
from fake_model import PNG, problem, served

from boneage_ray.cli import main
from boneage_ray.errors import UsageError
from boneage_ray.serving.tokens import TokenEntry, Tokens, read_entries, token_hash
from boneage_ray.serving.web import WebConfig, create_app

WARD = TokenEntry("ward-7", token_hash("one"), per_minute=2)
STUDY = TokenEntry("study", token_hash("two"), at_once=1)


def as_bearer(token):
    return PNG | {"Authorization": f"Bearer {token}"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\n\n{WARD.line()}\n{STUDY.line()}  # of 2026\n")
    return path


def change(path, text):
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def asked(file, model):
    """asked(work) -> what `work(client)` returns, of an app with these tokens and one of the environment."""
    app = create_app([served(model)], WebConfig((token_hash("three"),), str(file)))

    def run(work):
        async def scene():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return await work(client)

        return asyncio.run(scene())

    return run


def test_a_file_is_read_line_by_line(file):
    assert read_entries(file.read_text()) == [WARD, STUDY]
    assert WARD.line() == f"ward-7 {token_hash('one').hex()} per_minute=2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no token"),
        ("# only a remark", "no token"),
        ("ward-7", "line 1"),
        ("ward-7 secret", "line 1"),
        (f"\nward/7 {'0' * 64}", "line 2"),
        (f"a {'0' * 64} per_hour=3", "line 1"),
        (f"a {'0' * 64} at_once=0", "line 1"),
        (f"a {'0' * 64}\na {'1' * 64}", "same name"),
        (f"a {'0' * 64}\nb {'0' * 64}", "same token"),
    ],
)
def test_a_wrong_file_is_refused_and_what_it_says_is_not_repeated(tmp_path, text, said):
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        Tokens(file=str(path))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        Tokens(file=str(tmp_path / "nowhere"))


def test_tokens_of_the_file_and_of_the_environment_get_in(asked):
    async def work(client):
        return [
            (await client.get("/v1/models", headers=as_bearer(t))).status_code for t in ("one", "two", "three", "x")
        ]

    assert asked(work) == [200, 200, 200, 401]


def test_a_changed_file_holds_at_once_and_a_broken_one_changes_nothing(asked, file, capfd):
    async def work(client):
        async def statuses():
            return [(await client.get("/v1/models", headers=as_bearer(t))).status_code for t in ("two", "new")]

        seen = [await statuses()]
        for text in (f"late {token_hash('new').hex()}", "late not-a-hash", None):
            if text is None:
                file.unlink()
            else:
                change(file, text)
            seen.append(await statuses())
        return seen

    assert asked(work) == [[200, 401], [401, 200], [401, 200], [401, 200]]
    said = [line for line in capfd.readouterr().err.splitlines() if "tokens file" in line]
    assert [line.split(f"{file}")[1] for line in said] == [
        " has changed: 1 tokens",
        ": line 1 is not NAME SHA256 [per_minute=N] [at_once=N]; the 1 tokens read before stay",
        ": No such file or directory; the 1 tokens read before stay",
    ]


def test_a_token_that_asks_too_often_waits_and_others_do_not(asked):
    async def work(client):
        return [await client.get("/v1/models", headers=as_bearer(t)) for t in ("one", "one", "one", "three")]

    first, second, third, other = asked(work)
    assert (first.status_code, second.status_code, other.status_code) == (200, 200, 200)
    assert problem(third) == (429, "too_many_requests")
    assert third.headers["retry-after"] == "60"


def test_a_token_has_no_more_open_requests_than_it_may(asked, model):
    async def work(client):
        model.gate = asyncio.Event()
        first = asyncio.create_task(client.post("/v1/predict", content=b"1", headers=as_bearer("two")))
        while not model.seen:
            await asyncio.sleep(0.01)
        refused = await client.get("/v1/models", headers=as_bearer("two"))
        model.gate.set()
        return await first, refused, await client.get("/v1/models", headers=as_bearer("two"))

    first, refused, afterwards = asked(work)
    assert (first.status_code, afterwards.status_code) == (200, 200)
    assert problem(refused) == (429, "too_many_requests")
    assert refused.headers["retry-after"] == "1"


def test_the_line_of_a_request_names_its_token(asked, monkeypatch, capfd):
    monkeypatch.setenv("BONEAGE_LOG", "json")

    async def work(client):
        for token in ("two", "x"):
            await client.post("/v1/predict", content=b"1", headers=as_bearer(token))

    asked(work)
    named, unknown = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (named["token"], named["status"], named["model"]) == ("study", 200, "0" * 64)
    assert unknown["status"] == 401 and "token" not in unknown


def test_a_new_token_has_its_line_and_is_said_once(capfd):
    assert main(["token", "ward-9", "--at-once", "4"]) == 0
    answer = capfd.readouterr()
    (entry,) = read_entries(answer.out)
    assert (entry.name, entry.per_minute, entry.at_once) == ("ward-9", None, 4)
    assert token_hash(answer.err.split()[-1]) == entry.digest
    assert main(["token", "study"]) == 0
    assert [other.name for other in read_entries(answer.out + capfd.readouterr().out)] == ["ward-9", "study"]
    assert main(["token", "ward 9"]) == 2


def test_a_file_that_could_not_be_opened_is_read_as_soon_as_it_can_be(file, tmp_path, monkeypatch):
    tokens, read = Tokens(file=str(file)), Path.read_text

    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "new").write_text(STUDY.line())
    (tmp_path / "new").replace(file)
    monkeypatch.setattr(Path, "read_text", closed)
    assert [entry.name for entry in tokens.entries()] == ["ward-7", "study"]
    monkeypatch.setattr(Path, "read_text", read)
    assert [entry.name for entry in tokens.entries()] == ["study"]
