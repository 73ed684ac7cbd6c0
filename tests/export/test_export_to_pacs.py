"""Exported objects in a real PACS: stored by STOW-RS, found by QIDO-RS, read back by WADO-RS; and what a server can refuse."""

from __future__ import annotations

import io
import json
from functools import cache

import pytest
import requests
from made_up_scores import HAND, HEAD, dicom_file, row_of, write_scored
from orthanc import PASSWORD, USER, run_orthanc
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from boneage_ray.cli import main
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.export import objects, sending
from boneage_ray.storage import dicomweb


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(autouse=True)
def one_core_and_credentials(monkeypatch):
    monkeypatch.setattr(objects.os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(dicomweb, "ATTEMPTS", 2)
    monkeypatch.setattr(dicomweb, "FIRST_PAUSE_MS", 1)
    monkeypatch.setenv("BONEAGE_DICOMWEB_USER", USER)
    monkeypatch.setenv("BONEAGE_DICOMWEB_PASSWORD", PASSWORD)
    dicomweb.client_of.cache_clear()
    yield
    dicomweb.client_of.cache_clear()


def command(out, uri):
    return ["export", str(out), "--format", "dicom-sr", "--format", "dicom-sc", "--to", uri, "--json"]


def test_results_are_in_the_study_of_their_image(tmp_path, pacs, capsys):
    files = [dicom_file(tmp_path / "in" / f"{k}.dcm", k) for k in range(3)]
    rows = [row_of(path, values) for path, values in zip(files, (HAND, HEAD, HAND), strict=True)]
    out = write_scored(tmp_path / "out", rows)
    client = dicomweb.client_of(pacs.uri)
    dicomweb.store_instances(pacs.uri, [path.read_bytes() for path in files])
    for _ in range(2):  # what is sent again is there once
        assert main(command(out, pacs.uri)) == 0
        assert json.loads(capsys.readouterr().out) == {"rows": 3, "dicom-sr": 3, "dicom-sc": 3}
    for row in rows:
        series = client.search_for_series(row["study_uid"], fields=["Modality"])
        assert sorted(one["00080060"]["Value"][0] for one in series) == ["DX", "OT", "SR"]
        stored = {made.Modality: made for made in client.retrieve_study(row["study_uid"])}
        assert stored["SR"].CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID == row["study_uid"]
        assert {made.PatientID for made in stored.values()} == {"NB-4711"}
    assert len(client.search_for_instances()) == 9
    assert (
        stored["SR"].SOPInstanceUID
        == objects.object_name(objects.REPORT, rows[2])[-len(stored["SR"].SOPInstanceUID) - 4 : -4]
    )


def test_new_results_are_sent_once(tmp_path, pacs):
    out = write_scored(tmp_path / "out", [row_of(dicom_file(tmp_path / "in" / "a.dcm", 40), HAND)])
    accounts = [sending.sum_of(sending.send_new(str(out), pacs.uri, {})) for _ in range(2)]
    assert [dict(account.written) for account in accounts] == [{"dicom-sr": 1, "dicom-sc": 1}, {}]


def test_an_export_that_a_folder_holds_is_the_same_as_that_of_the_server(tmp_path, pacs, capsys):
    out = write_scored(tmp_path / "out", [row_of(dicom_file(tmp_path / "in" / "a.dcm", 50), HEAD)])
    assert main(command(out, pacs.uri)) == 0
    assert main(command(out, str(tmp_path / "to"))) == 0
    import pydicom

    written = {made.SOPInstanceUID: made for made in map(pydicom.dcmread, (tmp_path / "to").rglob("*.dcm"))}
    (study,) = {made.StudyInstanceUID for made in written.values()}
    stored = dicomweb.client_of(pacs.uri).retrieve_study(study)
    assert {made.SOPInstanceUID for made in stored} == set(written)
    assert all(made == written[made.SOPInstanceUID] for made in stored)


def test_wrong_credentials_and_addresses_are_said_before_any_work(tmp_path, pacs, capsys, monkeypatch):
    out = write_scored(tmp_path / "out", [row_of(dicom_file(tmp_path / "in" / "a.dcm", 60), HAND)])
    assert main(command(out, pacs.uri.replace("dicom-web", "nothing-here"))) == 2
    assert "HTTP 404: there is no DICOMweb service here" in capsys.readouterr().err
    dicomweb.client_of.cache_clear()
    monkeypatch.setenv("BONEAGE_DICOMWEB_PASSWORD", "wrong-password")
    assert main(command(out, pacs.uri)) == 2
    said = capsys.readouterr().err
    assert "HTTP 401: the server wants other credentials: set BONEAGE_DICOMWEB_USER" in said
    assert "wrong-password" not in said
    assert main(["export", str(out), "--format", "csv", "--to", pacs.uri]) == 2
    assert "a PACS takes dicom-sr, dicom-sc, dicom-pr only" in capsys.readouterr().err


def test_a_server_that_goes_down_in_the_middle_ends_the_export_which_then_goes_on(tmp_path, capsys, monkeypatch):
    files = [dicom_file(tmp_path / "in" / f"{k}.dcm", 70 + k) for k in range(3)]
    out = write_scored(tmp_path / "out", [row_of(path, HAND) for path in files])
    store, calls = dicomweb.store_instances, []
    with run_orthanc(tmp_path / "first") as server:

        def store_once(uri, data):
            calls.append(uri)
            if len(calls) == 2:
                server.stop()
            return store(uri, data)

        monkeypatch.setattr(dicomweb, "store_instances", store_once)
        assert main(command(out, server.uri)) == 2
        assert "no answer after 2 attempts (ConnectionError); start it, or check the address" in capsys.readouterr().err
    assert len(calls) == 2
    dicomweb.client_of.cache_clear()
    with run_orthanc(tmp_path / "first") as server:  # the same storage
        assert len(dicomweb.client_of(server.uri).search_for_instances()) == 2
        assert main(command(out, server.uri)) == 0
        assert len(dicomweb.client_of(server.uri).search_for_instances()) == 6


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("dicomweb+https://user:secret@host/dicom-web", "credentials in an address end up in logs"),
        ("dicomweb+https://host/dicom-web/studies?PatientID=1", "the address of a service is needed"),
        ("dicomweb+http://pacs.example.org/dicom-web", "credentials are not sent over plain http"),
    ],
)
def test_an_address_that_would_leak_is_refused(uri, said):
    with pytest.raises(UsageError, match=said) as caught:
        dicomweb.client_of(uri)
    assert "secret" not in str(caught.value)


def test_what_a_server_refuses_is_left_out_by_name(tmp_path, capsys, monkeypatch):
    out = write_scored(tmp_path / "out", [row_of(dicom_file(tmp_path / "in" / "a.dcm", 80), HAND)])
    monkeypatch.setattr(dicomweb, "check_service", lambda uri: None)

    def refuses_reports(uri, files):
        import io

        import pydicom

        made = [pydicom.dcmread(io.BytesIO(data)) for data in files]
        return [(one.SOPInstanceUID, "failure reason 0122H") for one in made if one.Modality == "SR"]

    monkeypatch.setattr(dicomweb, "store_instances", refuses_reports)
    assert main(command(out, "dicomweb+http://127.0.0.1/dicom-web")) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"rows": 1, "dicom-sr": 0, "dicom-sc": 1, "not exported": {"refused": 1}}
    assert "the server refused the sr: failure reason 0122H" in captured.err


def test_an_error_of_the_server_names_it(monkeypatch):
    error = dicomweb._refused("dicomweb+http://h/d", 500)
    assert isinstance(error, StorageError)
    assert str(error) == "dicomweb+http://h/d: HTTP 500: the server failed; its log says why"


@pytest.mark.parametrize(("status", "refused"), [(409, True), (413, True), (503, False), (401, False)])
def test_a_server_that_refuses_all_of_a_request_refuses_these_objects_and_stops_no_other(
    monkeypatch, refusal, status, refused
):
    made = Dataset()
    made.SOPInstanceUID, made.SOPClassUID = "1.2.3", "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)

    class Answering:
        def store_instances(self, datasets):
            response = requests.Response()
            response.status_code = status
            raise requests.HTTPError(response=response)

    monkeypatch.setattr(dicomweb, "client_of", cache(lambda uri: Answering()))
    if refused:
        assert dicomweb.store_instances("dicomweb+https://pacs/x", [file.getvalue()]) == [("1.2.3", f"HTTP {status}")]
    else:
        assert f"HTTP {status}" in refusal(dicomweb.store_instances, "dicomweb+https://pacs/x", [file.getvalue()])[1]
