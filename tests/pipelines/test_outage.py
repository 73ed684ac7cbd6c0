"""Scoring from and to an S3 server that is away for a while: every file is scored, none is lost or redone."""

from __future__ import annotations

import os
import threading
import time

import pytest
from pipelines.test_resume import start
from s3server import free_port, serve_s3

from boneage_ray import storage
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.storage import s3

pytestmark = [pytest.mark.ray, pytest.mark.slow]
AWAY_SECONDS = 12.0


@pytest.fixture
def own_server(tmp_path, monkeypatch):
    """(start, stop) of a server over the same folder and port, which the AWS_* variables of this test name."""
    port, folder = free_port(), tmp_path / "buckets"
    (folder / "site").mkdir(parents=True)
    running = []

    def begin():
        end = threading.Event()
        up = threading.Event()

        def serve():
            with serve_s3(folder, port) as server:
                running.append(server)
                up.set()
                end.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        assert up.wait(20)
        return lambda: (end.set(), thread.join())

    stops = [begin()]
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in running[0].environment.items():
        monkeypatch.setenv(name, value)

    def stop():
        stops.pop()()

    yield lambda: stops.append(begin()), stop
    while stops:
        stop()
    s3.close_all()


def test_scoring_goes_on_after_the_server_was_away(model, tmp_path, own_server, result_rows):
    come, go = own_server
    local = tmp_path / "local"
    write_hand_archive(str(local), 160, seed=33, size=96)
    for path in sorted((local / HAND_FOLDER).iterdir()):
        storage.write_bytes(f"s3://site/films/{path.name}", path.read_bytes())
    process = start("score", "s3://site/films", "--model", model, "--out", "s3://site/scores")
    end = time.monotonic() + 150
    while not storage.exists("s3://site/scores/results/part-00000.parquet"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    go()
    time.sleep(AWAY_SECONDS)
    come()
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    rows = result_rows("s3://site/scores")
    assert len(rows) == 160
    assert {row["status"] for row in rows.values()} == {"scored"}
    assert not storage.exists("s3://site/scores/lease.json")
