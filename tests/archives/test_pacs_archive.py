"""A DICOMweb server as an archive: what is listed, in which order, page by page; what is fetched; what a server can do wrong."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest
from orthanc import PASSWORD, USER, run_orthanc

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.instances import PICTURE_SERIES
from boneage_ray.archives.open import open_archive
from boneage_ray.archives.read import read_input
from boneage_ray.errors import InputProblem, ServerError, StorageError, UsageError
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.runtime import nodes
from boneage_ray.storage import dicomweb, dicomweb_source

CT, SC, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """Of the test server; connections and pauses are a test's own."""
    monkeypatch.setenv("BONEAGE_DICOMWEB_USER", USER)
    monkeypatch.setenv("BONEAGE_DICOMWEB_PASSWORD", PASSWORD)
    monkeypatch.setattr(dicomweb_source, "PAUSES", (0.01, 0.01))
    forget()
    yield
    forget()


def forget():
    dicomweb_source.session_of.cache_clear()
    dicomweb_source._silent.clear()


@pytest.fixture(scope="module")
def films():
    """SOP Instance UID -> file: five hands and two heads in several syntaxes, a CT slice, a report, a picture of our own."""
    hand = hand_phantom(1, 100, "F", 96).image
    files = [
        encode_dicom(hand, DicomTags(k, sex="F"), syntax)
        for k, syntax in enumerate(("explicit-little", "implicit-little", "jpeg-ls", "rle", "jpeg2000-lossless"))
    ]
    head = cephalogram_phantom(5, 3, 96).image
    files += [encode_dicom(head, DicomTags(k, body_part="HEAD", extra={"Modality": "CR"})) for k in (10, 11)]
    others = {20: (CT, "CT", "CT"), 21: (SR, "SR", "a report"), 22: (SC, "OT", PICTURE_SERIES)}
    for seed, (sop_class, modality, series) in others.items():
        extra = {"SOPClassUID": sop_class, "Modality": modality, "SeriesDescription": series}
        files.append(encode_dicom(hand, DicomTags(seed, extra=extra)))
    return {str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).SOPInstanceUID): data for data in files}


@pytest.fixture(scope="module")
def pacs(tmp_path_factory, films):
    with run_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        assert server.store(films.values()) == ["Success"] * 10
        yield server


def listed(source):
    return list(open_archive(source).inputs())


def test_every_image_is_listed_once_in_one_order_and_the_others_are_counted(pacs, films, monkeypatch):
    found = listed(pacs.uri)
    images = [item for item in found if item.uri]
    uids = [item.record_id for item in images]
    assert sorted(uids) == sorted(
        uid for uid, data in films.items() if PICTURE_SERIES.encode() not in data and SR.encode() not in data
    )
    assert [item.uri.rpartition("/instances/")[2] for item in images] == uids
    assert [item.uri for item in images] == sorted(item.uri for item in images)
    said = "no image to score: 1 passed over"
    assert [(item.record_id, item.problem) for item in found if not item.uri] == [
        ("Comprehensive SR Storage", ("unsupported_format", said)),
        ("pictures that boneage export made", ("unsupported_format", said)),
    ]
    monkeypatch.setattr(dicomweb_source, "PAGE", 2)
    assert listed(pacs.uri) == found


def test_what_is_fetched_is_the_file_that_was_stored(pacs, films):
    for item in listed(pacs.uri):
        if item.uri:
            assert read_input(item) == films[item.record_id]
            assert listed(item.uri) == [item]
            assert [one.uri for one in listed(item.uri.partition("/instances/")[0])] == [item.uri]


def test_a_query_is_passed_on(pacs, films):
    def count(query):
        return len([item for item in listed(f"{pacs.uri}?{query}") if item.uri])

    assert [count(f"Modality={one}") for one in ("DX", "CR", "CT", "DX,CR")] == [5, 2, 1, 7]
    assert count("Modality=CR&StudyDate=19000101-") == 2
    first = next(iter(films))
    assert count(f"SOPInstanceUID={first}") == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("PatientID=PID774411", "PatientID in a query would stand in logs and results"),
        ("AccessionNumber=PID774411", "AccessionNumber in a query would stand in logs"),
        ("StudyDat=2025", "StudyDat is no key of a query, or has no value; known are StudyDate, StudyTime"),
        ("Modality=", "Modality is no key of a query, or has no value"),
        ("limit=5", "limit is no key of a query"),
    ],
)
def test_a_query_that_names_a_person_or_is_not_understood_is_refused(query, said):
    with pytest.raises(UsageError, match=said) as refused:
        storage.absolute(f"dicomweb+https://host/dicom-web?{query}")
    assert "PID774411" not in str(refused.value)


def test_an_instance_that_was_deleted_is_not_found(pacs, films):
    extra = encode_dicom(hand_phantom(2, 90, "M", 96).image, DicomTags(77))
    assert pacs.store([extra]) == ["Success"]
    uid = str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(extra)).SOPInstanceUID)
    (item,) = [item for item in listed(pacs.uri) if item.record_id == uid]
    pacs.delete(uid)
    problem = read_input(item)
    assert (problem.step, problem.reason) == ("read", "not_found")
    assert "HTTP 404: the server has no such study, series or instance (any more)" in problem.message


def test_a_header_that_was_corrected_under_its_uid_has_another_version_and_no_other_has(pacs, films):
    def versions():
        return {item.record_id: item.version for item in listed(pacs.uri) if item.uri}

    hand = hand_phantom(1, 100, "F", 96).image
    uid, before = next(iter(films)), versions()
    assert versions() == before and None not in before.values()
    try:
        for corrected in (
            DicomTags(0, sex="M"),
            DicomTags(0, sex="F", spacing_mm=(0.3, 0.3)),
            DicomTags(0, sex="F", extra={"PatientAge": "101M"}),
        ):
            pacs.delete(uid)
            assert pacs.store([encode_dicom(hand, corrected)]) == ["Success"]
            after = versions()
            assert {name for name in after if after[name] != before[name]} == {uid}
        pacs.delete(uid)  # what is asked for does not hold the name or the birth date
        pacs.store(
            [encode_dicom(hand, DicomTags(0, sex="F", extra={"PatientName": "A^B", "PatientBirthDate": "20110203"}))]
        )
        assert versions() == before
    finally:
        pacs.delete(uid)
        pacs.store([films[uid]])


def test_wrong_credentials_and_addresses_are_known_before_any_work(pacs, monkeypatch):
    monkeypatch.setenv("BONEAGE_DICOMWEB_PASSWORD", "wrong-password")
    with pytest.raises(ServerError, match="HTTP 401: the server wants other credentials: set BONEAGE") as refused:
        open_archive(pacs.uri).check_join()
    assert "wrong-password" not in str(refused.value)
    monkeypatch.setenv("BONEAGE_DICOMWEB_PASSWORD", PASSWORD)
    forget()
    with pytest.raises(
        StorageError, match="HTTP 404: there is no DICOMweb service here; the address ends before /studies"
    ):
        open_archive(pacs.uri.replace("dicom-web", "elsewhere")).check_join()


def test_every_node_must_reach_the_server(pacs, monkeypatch):
    hold = SimpleNamespace(out="/out", problem=lambda: None)
    marks = [nodes._mark("SOURCE", f"{pacs.uri}?Modality=DX")]
    assert nodes._look(hold, marks) == []
    monkeypatch.delenv("BONEAGE_DICOMWEB_USER")
    forget()
    (problem,) = nodes._look(hold, marks)
    assert problem.startswith(f"SOURCE: {pacs.uri}: HTTP 401: the server wants other credentials")


def test_a_server_that_is_down_ends_the_work_without_a_row(tmp_path, films):
    with run_orthanc(tmp_path / "pacs") as server:
        server.store(list(films.values())[:1])
        (item,) = listed(server.uri)
        server.stop()
        for ask in (lambda: read_input(item), lambda: listed(server.uri)):
            with pytest.raises(ServerError, match=r"no answer \(ConnectionError\); start it, or check the address"):
                ask()


class Faulty(BaseHTTPRequestHandler):
    """A server that gives at most `cap` answers, ignores `offset` if told so, and fails `failures` times with a status."""

    cap, ignores_offset, says_more, failures, status, calls = 3, False, False, 0, 503, 0
    body, kind = b"", "text/html"
    studies = tuple(f"1.2.{k}" for k in range(8))

    def do_GET(self):
        kind = type(self)
        kind.calls += 1
        where = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(where.query).items()}
        if "/instances/" in where.path:
            failing, kind.failures = kind.failures > 0, kind.failures - 1
            return self.answer(kind.status if failing else 200, kind.body, kind.kind)
        if kind.status == 503 and kind.failures > 0:
            kind.failures -= 1
            return self.answer(503, b"", "text/plain")
        offset = 0 if kind.ignores_offset else int(query.get("offset", 0))
        page = kind.studies[offset : offset + min(kind.cap, int(query["limit"]))]
        data = json.dumps([{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in page]).encode()
        return self.answer(200 if page else 204, data if page else b"", "application/dicom+json")

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.says_more:
            self.send_header("Warning", '299 test "There are additional results that can be requested"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def faulty(**how):
    handler = type("Handler", (Faulty,), how)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"dicomweb+http://127.0.0.1:{server.server_port}/d", handler
        server.shutdown()


def studies_of(uri):
    return list(dicomweb_source.search(dicomweb_source.parsed_address(uri), "studies", {}, ["0020000D"]))


def test_a_server_that_caps_its_answers_is_asked_for_the_rest():
    with faulty() as (uri, handler):
        assert studies_of(uri) == list(handler.studies)
    with faulty(ignores_offset=True, cap=100) as (uri, handler):  # all in one answer
        assert studies_of(uri) == list(handler.studies)


def test_a_server_that_has_more_but_never_gives_it_is_refused():
    with (
        faulty(ignores_offset=True, says_more=True) as (uri, _),
        pytest.raises(StorageError, match="the same 3 answers for every offset, and has more; narrow the query"),
    ):
        studies_of(uri)


def test_a_busy_server_is_asked_again():
    with faulty(failures=2) as (uri, handler):
        assert studies_of(uri) == list(handler.studies)
        assert handler.calls == 2 + 4


BODY = b"--x\r\nContent-Type: application/dicom\r\n\r\nfile\r\n--of\r\n--x--\r\n"
MULTIPART = 'multipart/related; type="application/dicom"; boundary="x"'


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"body": BODY, "kind": MULTIPART}, b"file\r\n--of"),
        ({"body": BODY, "kind": MULTIPART, "failures": 2}, b"file\r\n--of"),
        ({"body": b"file", "kind": "application/dicom"}, b"file"),
        ({"body": BODY[:-12], "kind": MULTIPART}, ("truncated", "the server's message ends within the file")),
        ({"body": b"<html>sign in", "kind": "text/html"}, ("unreadable", "the server sends text/html, no DICOM file")),
        ({"failures": 99, "status": 500}, ("unreadable", "HTTP 500, while the server answers otherwise")),
        ({"failures": 99, "status": 502}, ("unreadable", "HTTP 502, while the server answers otherwise")),
        ({"failures": 1, "status": 403}, ("permission_denied", "HTTP 403: these credentials may not read this")),
        ({"failures": 1, "status": 410}, ("not_found", "HTTP 410")),
    ],
)
def test_answers_to_the_request_of_an_instance(answer, expected):
    with faulty(**answer) as (uri, _):
        read = read_input(Input(f"{uri}/studies/1/series/2/instances/3", "3"))
    if isinstance(expected, bytes):
        assert read == expected
    else:
        assert isinstance(read, InputProblem)
        assert (read.step, read.reason) == ("read", expected[0])
        assert expected[1] in read.message


def test_an_instance_larger_than_the_limit_is_not_read_whole(monkeypatch):
    monkeypatch.setenv("BONEAGE_MAX_INPUT_MB", "1")
    sent = b"--x\r\n\r\n" + bytes(2**23) + b"\r\n--x--"
    with faulty(body=sent, kind=MULTIPART) as (uri, _):
        problem = read_input(Input(f"{uri}/studies/1/series/2/instances/3", "3"))
    assert (problem.step, problem.reason) == ("read", "too_large")
    assert dicomweb.is_dicomweb(uri)
