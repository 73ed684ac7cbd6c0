"""Exported objects sent by C-STORE to dcmtk's storescp and to a node of our own; what was sent is remembered."""

from __future__ import annotations

import json
import os

import pydicom
import pytest
from dcmtk import storescp
from made_up_scores import HAND, HEAD, dicom_file, row_of, write_scored
from orthanc import free_port

from boneage_ray.cli import main
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.export import objects, sending
from boneage_ray.export.source import LeftOut, find_source
from boneage_ray.storage import dimse, dimse_node

pytest.importorskip("pynetdicom") if not os.environ.get("CI") else __import__("pynetdicom")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(objects.os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(dimse_node, "PAUSES", ())


def taken(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def values(made):
    """Without value representations, which an implicit encoding does not have."""
    return [(element.tag, element.value) for element in made.iterall() if element.VR != "SQ"]


def scored(tmp_path, *numbers):
    files = [dicom_file(tmp_path / "in" / f"{k}.dcm", k) for k in numbers]
    return [row_of(path, (HAND, HEAD)[k % 2]) for k, path in zip(numbers, files, strict=True)]


@pytest.mark.parametrize("options", [(), ("+xi",)], ids=["explicit", "implicit only"])
def test_a_node_has_the_objects_that_a_folder_has(tmp_path, capsys, options):
    out, port = write_scored(tmp_path / "out", scored(tmp_path, 0, 1)), free_port()
    both = ["export", str(out), "--format", "dicom-sr", "--format", "dicom-sc", "--json", "--to"]
    assert main([*both, str(tmp_path / "to")]) == 0
    capsys.readouterr()
    with storescp(tmp_path / "node", port, *options):
        assert main([*both, f"dicom://127.0.0.1:{port}/NODE"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 2, "dicom-sr": 2, "dicom-sc": 2}
    written = {made.SOPInstanceUID: made for made in map(pydicom.dcmread, (tmp_path / "to").rglob("*.dcm"))}
    assert len(written) == 4
    for made in taken(tmp_path / "node"):
        assert values(made) == values(written.pop(made.SOPInstanceUID))
    assert not written


# pynetdicom leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_part_is_sent_once_and_what_is_new_in_it_later(tmp_path):
    rows, port = scored(tmp_path, 0, 1, 2), free_port()
    out, place = write_scored(tmp_path / "out", rows[:2]), f"dicom://US@127.0.0.1:{port}/NODE"

    def sent(to=place):
        return dict(sending.sum_of(sending.send_new(str(out), to, {})).written)

    with pytest.raises(StorageError, match="no answer; start it, or check the address"):
        sent()
    with storescp(tmp_path / "node", port):
        assert sent() == {"dicom-sr": 2, "dicom-sc": 2}
        first = {made.SOPInstanceUID: (made.ContentDate, made.ContentTime) for made in taken(tmp_path / "node")}
        assert sent() == sent(place.replace("US@", "")) == {}
        write_scored(out, rows)  # the part is renewed
        assert sent() == {"dicom-sr": 1, "dicom-sc": 1}
    assert len(first) == 4
    assert len(taken(tmp_path / "node")) == 6


def test_what_was_sent_before_the_node_failed_is_not_sent_again(tmp_path, monkeypatch):
    out, port = write_scored(tmp_path / "out", scored(tmp_path, 0, 1, 2)), free_port()
    place = f"dicom://127.0.0.1:{port}/NODE"
    store, calls = dimse_node.Sender.store, []

    def fails_at_the_third(self, files):
        calls.append(len(files))
        if len(calls) == 3:
            raise StorageError("unreadable", "it breaks off")
        return store(self, files)

    monkeypatch.setattr(dimse_node.Sender, "store", fails_at_the_third)
    with storescp(tmp_path / "node", port):
        with pytest.raises(StorageError, match="breaks off"):
            sending.sum_of(sending.send_new(str(out), place, {}))
        again = sending.sum_of(sending.send_new(str(out), place, {}))
    assert (again.written, again.present) == ({"dicom-sr": 1, "dicom-sc": 1}, {"dicom-sr": 2, "dicom-sc": 2})
    assert len({made.ContentTime for made in taken(tmp_path / "node")}) == 1  # one time, whenever it was sent
    assert len(taken(tmp_path / "node")) == 6


def test_a_file_that_cannot_be_read_now_is_sent_later_and_one_that_is_gone_is_not(tmp_path, monkeypatch):
    rows, port, known = scored(tmp_path, 0, 1, 2), free_port(), {}
    out, place = write_scored(tmp_path / "out", rows), f"dicom://127.0.0.1:{port}/NODE"
    away = LeftOut("unreadable", "the storage is away")
    (tmp_path / "in" / "1.dcm").unlink()

    def sent():
        return sending.sum_of(sending.send_new(str(out), place, known))

    with storescp(tmp_path / "node", port):
        with monkeypatch.context() as patch:
            patch.setattr(objects, "find_source", lambda row: away if "0.dcm" in row["input_uri"] else find_source(row))
            account = sent()
        assert (account.written["dicom-sr"], sending.waits(account)) == (1, True)
        account = sent()
        assert (account.written["dicom-sr"], account.present["dicom-sr"], sending.waits(account)) == (1, 1, False)
        assert [reason for _, reason, _ in account.left_out] == ["not_found"]
        assert sent().rows == 0


def test_a_node_that_does_not_know_us_or_is_full_is_said_and_what_it_refuses_is_left_out(tmp_path, capsys, monkeypatch):
    out, port = write_scored(tmp_path / "out", scored(tmp_path, 0)), free_port()
    receiver = dimse.Receiver(str(tmp_path / "node"), "NODE", ["FRIEND"], lambda line: None)
    server = receiver.start("127.0.0.1", port)
    command = ["export", str(out), "--format", "dicom-sr", "--json", "--to"]
    try:
        assert main([*command, f"dicom://127.0.0.1:{port}/NODE"]) == 2
        assert "it takes no association of BONEAGE to NODE; check both AE titles" in capsys.readouterr().err
        monkeypatch.setattr(dimse.Receiver, "_stored", lambda self, event: (0x0124, "refused"))
        assert main([*command, f"dicom://FRIEND@127.0.0.1:{port}/NODE"]) == 3
        assert "the server refused the sr: status 0124H" in capsys.readouterr().err
        monkeypatch.setattr(dimse.Receiver, "_stored", lambda self, event: (dimse.OUT_OF_RESOURCES, "full"))
        assert main([*command, f"dicom://FRIEND@127.0.0.1:{port}/NODE"]) == 2
        assert "out of resources (status A700H)" in capsys.readouterr().err
    finally:
        server.shutdown()
    for wrong in (
        "dicom://host/PACS",
        "dicom://host:104",
        "dicom://host:x/PACS",
        "dicom://host:104/A-TITLE-THAT-IS-TOO-LONG",
    ):
        with pytest.raises(UsageError, match=r"dicom://HOST:104/PACS|AE title"):
            dimse_node.parsed_node(wrong)
