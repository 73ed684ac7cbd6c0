"""The DICOM node, asked by dcmtk's echoscu and storescu: what is kept under which name, and the status of what is not."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pydicom
import pytest
from dcmtk import dcmtk
from orthanc import free_port, run_orthanc

from boneage_ray.cli import main
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.storage import dimse, dimse_query, facade

pynetdicom = pytest.importorskip("pynetdicom") if not os.environ.get("CI") else __import__("pynetdicom")
PATIENT = {"PatientName": "Qvorbeck^Zyxwina", "PatientID": "PID774411"}


@pytest.fixture
def node(tmp_path):
    """A node that listens: (receiver, port, lines)."""
    lines = []
    receiver = dimse.Receiver(str(tmp_path / "incoming"), "BONEAGE", ["STORESCU"], lines.append)
    port = free_port()
    server = receiver.start("127.0.0.1", port)
    yield receiver, port, lines
    server.shutdown()
    assert [word for word in ("Qvorbeck", "PID774411") if word in "".join(lines)] == []


def send(program, port, *arguments, aet="STORESCU", aec="BONEAGE"):
    """(exit code, what it printed)."""
    command = [dcmtk(program), "-v", "-aet", aet, "-aec", aec, "127.0.0.1", str(port), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def hand(folder, number, encoding="explicit-little", **extra):
    image = hand_phantom(number, 100, "F", 96).image
    path = folder / f"Qvorbeck-{number}-{encoding}-{len(extra)}.dcm"
    path.write_bytes(encode_dicom(image, DicomTags(number, extra=PATIENT | extra), encoding))
    return path


def kept(receiver):
    return sorted(facade.list_files(receiver.place))


def test_what_is_sent_is_kept_once_under_names_of_nobody(node, tmp_path):
    receiver, port, _ = node
    assert send("echoscu", port)[0] == 0
    files = [hand(tmp_path, 1), hand(tmp_path, 2, "implicit-little")]
    for _ in range(2):
        assert send("storescu", port, "--propose-implicit", files[1])[0] == 0
        assert send("storescu", port, files[0])[0] == 0
    squeezed = hand(tmp_path, 3, "jpeg-lossless-sv1")
    assert send("storescu", port, "--propose-lossless", squeezed)[0] == 0
    assert receiver.counts == {"kept": 3, "there_already": 2}
    assert [
        word for info in kept(receiver) for word in ("Qvorbeck", "PID774411", "1.2.", "2.25") if word in info.uri
    ] == []
    found = {made.SOPInstanceUID: made for made in (pydicom.dcmread(info.uri) for info in kept(receiver))}
    for path in (*files, squeezed):
        sent = pydicom.dcmread(path)
        got = found[sent.SOPInstanceUID]
        assert (got.PatientID, got.PixelData) == ("PID774411", sent.PixelData)
        assert got.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID


def test_unknown_titles_are_refused(node, tmp_path):
    receiver, port, lines = node
    assert send("echoscu", port, aet="STRANGER")[0] != 0
    code, said = send("storescu", port, hand(tmp_path, 1), aet="STRANGER")
    assert code != 0
    assert "Association Rejected" in said
    assert send("echoscu", port, aec="OTHER")[0] != 0
    assert receiver.counts == {"refused_associations": 3}
    assert len(lines) == 3
    for allowed in ([], ["TOO LONG FOR A TITLE"]):
        with pytest.raises(UsageError, match=r"AE title|--allow"):
            dimse.Receiver("x", "BONEAGE", allowed, lines.append)


def test_another_object_with_the_same_uid_is_kept_beside_the_first(node, tmp_path):
    receiver, port, lines = node
    first, other = hand(tmp_path, 1), hand(tmp_path, 1, ImageComments="another")
    for path in (first, other, other):
        assert send("storescu", port, path)[0] == 0
    assert receiver.counts == {"kept": 1, "kept_beside": 1, "there_already": 1}
    assert len(kept(receiver)) == 2
    assert "has the UID of another one and is kept beside it" in lines[0]


def test_a_full_disk_is_told_to_the_sender(node, tmp_path, monkeypatch):
    receiver, port, lines = node

    def full(uri, data):
        raise StorageError("unreadable", f"{uri}: no space is left on the device")

    with monkeypatch.context() as patch:
        patch.setattr(facade, "write_bytes", full)
        assert "OutOfResources" in send("storescu", port, hand(tmp_path, 1))[1].replace(" ", "")
    assert receiver.counts == {"out_of_resources": 1}
    assert "no space is left on the device" in lines[0]
    assert send("storescu", port, hand(tmp_path, 1))[0] == 0
    assert receiver.counts["kept"] == 1


def test_what_cannot_be_understood_has_a_status_and_what_is_only_damaged_is_kept(node):
    receiver, port, _ = node
    data = encode_dicom(hand_phantom(1, 100, "F", 96).image, DicomTags(1))
    good = pydicom.dcmread(io.BytesIO(data))
    meta = data[: data.index(b"\x08\x00\x16\x00")]

    def status(uid, sent):
        request = SimpleNamespace(AffectedSOPInstanceUID=uid, AffectedSOPClassUID=good.SOPClassUID)
        return receiver.store(SimpleNamespace(request=request, encoded_dataset=lambda: sent))

    uid = good.SOPInstanceUID
    statuses = [status("1.2.3.4", data), status(uid, meta + b"garbage"), status(uid, b""), status(uid, data[:-3000])]
    assert statuses == [dimse.MISMATCH, dimse.MISMATCH, dimse.CANNOT_UNDERSTAND, dimse.SUCCESS]
    assert len(kept(receiver)) == 1
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert send("echoscu", port)[0] == 0


def test_the_command_ends_with_a_count(tmp_path):
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "boneage_ray",
        "receive",
        "--to",
        tmp_path / "in",
        "--allow",
        "STORESCU",
        "--port",
        port,
        "--json",
    ]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "listening as BONEAGE" in process.stderr.readline()
    assert send("storescu", port, hand(tmp_path, 1))[0] == 0
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert json.loads(out) == {"kept": 1}
    assert process.returncode == 0


@pytest.fixture(scope="module")
def orthanc_node(tmp_path_factory):
    """An Orthanc that knows us: three hands in two studies, one of them with a CT series; (server, our port)."""
    port = free_port()
    with run_orthanc(tmp_path_factory.mktemp("orthanc"), nodes={"BONEAGE": port}) as server:
        image = hand_phantom(1, 100, "F", 96).image
        uids = [
            {"StudyInstanceUID": f"1.2.3.{study}", "SeriesInstanceUID": f"1.2.3.{study}.{n}"} for study, n in PLACES
        ]
        others = [{}, {"Modality": "CR", "StudyDate": "20250611"}, {"Modality": "CT", "StudyDate": "20250611"}]
        files = [
            encode_dicom(image, DicomTags(40 + number, extra=PATIENT | where | other))
            for number, (where, other) in enumerate(zip(uids, others, strict=True))
        ]
        assert server.store(files) == ["Success"] * 3
        yield server, port


PLACES = ((1, 1), (2, 1), (2, 2))


@pytest.mark.parametrize(
    ("query", "studies", "objects"),
    [
        ("", 2, 3),
        ("?StudyDate=20250601-", 1, 2),
        ("?Modality=CR,DX", 2, 2),
        ("?StudyInstanceUID=1.2.3.2&Modality=CT", 1, 1),
        ("?StudyDate=18990101", 0, 0),
    ],
)
def test_a_node_sends_what_a_query_finds(orthanc_node, tmp_path, capsys, query, studies, objects):
    server, port = orthanc_node
    source = f"dicom://127.0.0.1:{server.dicom_port}/ORTHANC{query}"
    command = ["receive", "--to", str(tmp_path), "--port", str(port), "--fetch", source, "--json"]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.pop("fetched") == {"studies": studies, "objects": objects, "failed": 0}
    assert answer == {"kept": objects}
    assert len(list(tmp_path.rglob("*.dcm"))) == objects


def test_a_node_that_does_not_know_us_and_a_query_of_persons_are_said(orthanc_node, tmp_path, capsys):
    server, port = orthanc_node
    source = f"dicom://127.0.0.1:{server.dicom_port}/ORTHANC"
    command = ["receive", "--to", str(tmp_path), "--port", str(port), "--fetch"]
    assert main([*command, source, "--aet", "STRANGER"]) == 2
    assert (
        "not willing to send a study (status C000H); it must know STRANGER as a destination, with our"
        in capsys.readouterr().err
    )
    assert main([*command, f"{source}?PatientID=774411"]) == 2
    said = capsys.readouterr().err
    assert "choose by StudyInstanceUID instead" in said and "774411" not in said
    assert main([*command, f"{source}?SOPInstanceUID=1.2"]) == 2
    assert "a node is asked for studies and series only" in capsys.readouterr().err


def test_a_node_that_moves_without_a_word_is_left_as_soon_as_the_command_is_stopped():
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as Move

    stopped, over, asked = threading.Event(), threading.Event(), []

    def find(event):
        for uid in ("1.2.1", "1.2.2"):
            study = pydicom.Dataset()
            study.StudyInstanceUID = uid
            yield 0xFF00, study

    def move(event):
        asked.append(event.identifier.StudyInstanceUID)
        stopped.set()
        over.wait(60)
        yield None, None

    node = AE(ae_title="ARCHIVE")
    for context in (Find, Move):
        node.add_supported_context(context)
    port = free_port()
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_MOVE, move)]
    server = node.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        query = dimse_query.parsed_node_query(f"dicom://127.0.0.1:{port}/ARCHIVE", "BONEAGE")
        fetched = dimse_query.fetch_all(query, stopped.is_set)
        assert not over.is_set()
    finally:
        over.set()
        server.shutdown()
    assert (fetched.studies, fetched.objects, asked) == (1, 0, ["1.2.1"])
