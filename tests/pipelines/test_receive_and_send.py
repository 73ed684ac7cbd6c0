"""`boneage receive` with a model, between storescu and storescp of dcmtk: a row for every object, and its results sent back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
import pyarrow.dataset as ds
import pydicom
import pytest
import ray
from dcmtk import dcmtk, storescp
from orthanc import free_port

from boneage_ray.commands.rounds import Rounds, go_round
from boneage_ray.errors import StorageError
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom

pytest.importorskip("pynetdicom") if not os.environ.get("CI") else __import__("pynetdicom")


def hand(folder, number, age=100, **extra):
    path = folder / f"{number}-{age}-{len(extra)}.dcm"
    tags = DicomTags(number, sex="F", spacing_mm=(1.9, 1.9), extra={"PatientName": "Qvorbeck^Zyxwina"} | extra)
    path.write_bytes(encode_dicom(hand_phantom(number, age, "F", 96).image, tags))
    return path


def start(model, folder, port, node_port):
    words = ["--to", folder / "in", "--allow", "STORESCU", "--port", port, "--model", model, "--out", folder / "out"]
    words += ["--quiet-seconds", 0.5, "--send", f"dicom://127.0.0.1:{node_port}/NODE", "--json"]
    command = [sys.executable, "-m", "boneage_ray", "receive", *map(str, words)]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with (folder / f"log-{time.monotonic_ns()}").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    wait_for(process, lambda: any("listening as" in path.read_text() for path in logs(folder)[-1:]))
    return process


def logs(folder):
    return sorted(folder.glob("log-*"))


def wait_for(process, happened, seconds=150):
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None and time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def send(port, *files):
    command = [dcmtk("storescu"), "-aet", "STORESCU", "-aec", "BONEAGE", "127.0.0.1", str(port), *map(str, files)]
    subprocess.run(command, check=True, timeout=60)


def kill_with_children(process):
    """SIGKILL for the node and for the scoring that it started."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in reversed(family):
        each.kill()
    process.communicate()


@pytest.mark.ray
@pytest.mark.slow
def test_every_object_has_a_row_and_its_results_are_sent_back(model, tmp_path):
    port, node_port, node = free_port(), free_port(), tmp_path / "node"
    process = start(model, tmp_path, port, node_port)
    send(port, *(hand(tmp_path, number) for number in range(3)))
    wait_for(process, (tmp_path / "out" / "lease.json").exists)
    kill_with_children(process)

    process = start(model, tmp_path, port, node_port)
    with storescp(node, node_port):
        wait_for(process, lambda: node.exists() and len(list(node.iterdir())) == 6)
        picture = next(path for path in node.iterdir() if pydicom.dcmread(path).Modality == "OT")
        send(port, hand(tmp_path, 3), hand(tmp_path, 3, 120), hand(tmp_path, 2), picture)
        process.send_signal(signal.SIGTERM)
        answer = json.loads(process.communicate(timeout=600)[0])
        assert process.returncode == 0
    assert {name: answer[name] for name in ("kept", "kept_beside", "there_already")} == {
        "kept": 2,
        "kept_beside": 1,
        "there_already": 1,
    }
    rows = ds.dataset(f"{tmp_path}/out/results").to_table().to_pylist()
    files = sorted(str(path) for path in (tmp_path / "in").rglob("*.dcm"))
    assert sorted(row["input_uri"] for row in rows) == files
    assert Counter(row["reason"] or row["status"] for row in rows) == {"scored": 5, "wrong_modality": 1}
    sent = [pydicom.dcmread(path) for path in node.iterdir()]
    assert Counter(made.Modality for made in sent) == {"SR": 5, "OT": 5}
    assert {made.StudyInstanceUID for made in sent} == {row["study_uid"] for row in rows if row["status"] == "scored"}
    assert not [path for path in logs(tmp_path) if "Qvorbeck" in path.read_text()]


def test_what_cannot_be_scored_or_sent_waits_and_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    rounds = Rounds(str(tmp_path / "in"), "no-such-model", str(tmp_path / "out"), "dicom://127.0.0.1:1/NODE")
    assert rounds.round()  # nothing came
    hand(tmp_path / "in", 1)
    assert not rounds.round()
    assert "boneage score ended with exit code 2; all that was received is kept" in capsys.readouterr().err
    monkeypatch.setattr(Rounds, "_score", lambda self: True)

    def down(out, place, known):
        raise StorageError("unreadable", f"{place}: no answer")

    monkeypatch.setattr("boneage_ray.commands.rounds.send_new", down)
    assert not rounds.round()
    assert "results wait: dicom://127.0.0.1:1/NODE: no answer" in capsys.readouterr().err

    def away(uri):
        raise StorageError("unreadable", f"{uri}: no connection")

    monkeypatch.setattr("boneage_ray.commands.rounds.storage.is_empty", away)
    assert not rounds.round()  # and the node goes on receiving
    assert "in: no connection" in capsys.readouterr().err


def test_a_round_follows_a_quiet_time_and_one_that_could_not_do_all_is_made_again(monkeypatch):
    monkeypatch.setattr("boneage_ray.commands.rounds.TICK_SECONDS", 0.01)
    monkeypatch.setattr("boneage_ray.commands.rounds.AGAIN_SECONDS", 0.01)
    stop, made, came = threading.Event(), [], [None]

    def a_round():
        made.append(came[0])
        if len(made) == 2:
            came[0] = time.monotonic()
        if len(made) == 3:
            stop.set()
        return len(made) > 1

    go_round(a_round, lambda: came[0], 0.05, stop)
    assert made[:2] == [None, None] and made[2] is not None


def test_objects_that_come_all_the_time_are_scored_too(monkeypatch):
    monkeypatch.setattr("boneage_ray.commands.rounds.TICK_SECONDS", 0.01)
    stop, made = threading.Event(), []

    def a_round():
        made.append(time.monotonic())
        if len(made) == 2:
            stop.set()
        return True

    go_round(a_round, time.monotonic, 0.05, stop)
    assert len(made) == 2
