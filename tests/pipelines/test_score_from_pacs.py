"""From a real PACS and back: listed, scored, killed and continued, updated, and the results found beside their images."""

from __future__ import annotations

import io
from collections import Counter

import pyarrow.dataset as ds
import pydicom
import pytest
from orthanc import PASSWORD, USER, run_orthanc
from pipelines.steps import SMALL, run
from pipelines.test_resume import kill_when, start

from boneage_ray.commands import export, pipeline
from boneage_ray.errors import ServerError
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.storage import dicomweb, dicomweb_source

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.33"


@pytest.fixture
def pacs(tmp_path, monkeypatch):
    """An Orthanc with nine hands, a head, a CT slice and a report."""
    monkeypatch.setenv("BONEAGE_DICOMWEB_USER", USER)
    monkeypatch.setenv("BONEAGE_DICOMWEB_PASSWORD", PASSWORD)
    head = cephalogram_phantom(5, 3, 96).image
    files = [hand(number) for number in range(9)]
    files.append(encode_dicom(head, DicomTags(20, body_part="HEAD")))
    files.append(hand(21, SOPClassUID=CT, Modality="CT"))
    files.append(hand(22, SOPClassUID=SR, Modality="SR"))
    with run_orthanc(tmp_path / "orthanc") as server:
        server.store(files)
        yield server
    forget()


def forget():
    dicomweb.client_of.cache_clear()
    dicomweb_source.session_of.cache_clear()
    dicomweb_source._silent.clear()


def hand(number, **extra):
    image = hand_phantom(number, 60 + number % 100, "F", 96).image
    extra = {"PatientName": "Qvorbeck^Zyxwina", "PatientID": "PID774411", "PatientBirthDate": "19870302"} | extra
    return encode_dicom(image, DicomTags(number, sex="F", spacing_mm=(1.9, 1.9), extra=extra))


def uid_of(data):
    return str(pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID)


def rows_of(out):
    """SOP Instance UID -> row."""
    rows = ds.dataset(f"{out}/results").to_table().to_pylist()
    found = {row["input_uri"].rpartition("/")[2]: row for row in rows}
    assert len(found) == len(rows)
    return found


def score(source, model, out, **flags):
    return run(pipeline.score, pipeline.ScoreArguments(source, model, str(out), **flags)).answer


def outcomes(out):
    return Counter(row["reason"] or row["status"] for row in rows_of(out).values())


def test_a_pacs_is_scored_and_has_the_results_beside_its_images(pacs, model, tmp_path, capfd):
    source, out = f"{pacs.uri}?Modality=DX,CT,SR", tmp_path / "scores"
    answer = score(source, model, out)
    assert (answer["inputs"], answer["scored"], answer["rejected"], answer["failed"]) == (11, 9, 2, 0)
    assert outcomes(out) == {"scored": 9, "wrong_body_part": 1, "wrong_modality": 1}
    row = rows_of(out)[uid_of(hand(3))]
    assert row["input_uri"] == (
        f"{pacs.uri}/studies/{row['study_uid']}/series/{row['series_uid']}/instances/{row['sop_uid']}"
    )
    assert (row["sex"], row["sex_source"], row["pixel_spacing_mm"]) == ("F", "dicom", 1.9)
    assert "no image to score: 1 passed over" in (out / "table_notes.csv").read_text()

    run(export.export, export.ExportArguments(str(out), ["dicom-sr", "dicom-sc"], pacs.uri))
    client = dicomweb.client_of(pacs.uri)
    series = client.search_for_series(row["study_uid"])
    assert sorted(one["00080060"]["Value"][0] for one in series) == ["DX", "OT", "SR"]
    assert len(client.search_for_series(search_filters={"Modality": "SR"})) == 1 + 9

    # Results that came back are no inputs, so nothing is new; then one image comes, and one goes.
    before = rows_of(out)
    answer = score(pacs.uri.rstrip("/") + "?Modality=DX,CT,SR", model, out, update=True)
    assert {name: answer[name] for name in ("inputs", "new", "changed", "vanished")} == {
        "inputs": 11,
        "new": 0,
        "changed": 0,
        "vanished": 0,
    }
    everything = score(pacs.uri, model, tmp_path / "everything")
    assert (everything["inputs"], everything["scored"]) == (11, 9)
    pacs.store([hand(40)])
    pacs.delete(uid_of(hand(0)))
    pacs.delete(uid_of(hand(1)))
    pacs.store([hand(1, PatientSex="M")])  # corrected under its UID
    answer = score(source, model, out, update=True)
    assert {name: answer[name] for name in ("inputs", "new", "changed", "vanished")} == {
        "inputs": 11,
        "new": 1,
        "changed": 1,
        "vanished": 1,
    }
    after = rows_of(out)
    corrected = uid_of(hand(1))
    assert (before[corrected]["sex"], after[corrected]["sex"]) == ("F", "M")
    assert set(after) ^ set(before) == {uid_of(hand(0)), uid_of(hand(40))}
    said = "".join(capfd.readouterr())
    assert [name for name in ("Qvorbeck", "PID774411", "19870302", PASSWORD) if name in said] == []


def test_killed_then_closed_it_continues_without_a_false_row(pacs, model, tmp_path):
    pacs.store([hand(number) for number in range(100, 160)])
    source, out = f"{pacs.uri}?Modality=DX", tmp_path / "scores"
    process = start("score", source, "--model", model, "--out", str(out))
    kill_when(process, (out / "results" / "part-00000.parquet").exists)
    part = (out / "results" / "part-00000.parquet").stat()
    pacs.stop()
    forget()
    with pytest.raises(ServerError, match="no answer"):
        score(source, model, out)
    forget()
    with run_orthanc(tmp_path / "orthanc", pacs.port):
        answer = score(source, model, out)
    assert (answer["inputs"], answer["scored"], answer["rejected"]) == (70, 69, 1)
    assert len(rows_of(out)) == 70
    again = (out / "results" / "part-00000.parquet").stat()
    assert (again.st_ino, again.st_mtime_ns) == (part.st_ino, part.st_mtime_ns)


def test_an_instance_deleted_after_the_listing_has_a_row_that_the_next_update_takes_away(
    pacs, model, tmp_path, monkeypatch
):
    source, out = f"{pacs.uri}?Modality=DX", tmp_path / "scores"
    gone = uid_of(hand(4))
    check, done = pipeline.check_tables, []

    def listed_then_deleted(run, archive, learns=True):
        check(run, archive, learns)
        inputs = list(archive.inputs())
        archive.__class__ = type("Listed", (archive.__class__,), {})
        monkeypatch.setattr(archive.__class__, "inputs", lambda self: iter(inputs))
        done.extend(pacs.delete(gone))

    monkeypatch.setattr(pipeline, "check_tables", listed_then_deleted)
    score(source, model, out)
    row = rows_of(out)[gone]
    assert (row["status"], row["step"], row["reason"]) == ("failed", "read", "not_found")
    monkeypatch.setattr(pipeline, "check_tables", check)
    answer = score(source, model, out, update=True)
    assert (answer["inputs"], answer["vanished"]) == (9, 1)
    assert gone not in rows_of(out)


def test_prepare_takes_a_pacs_with_a_table_of_labels(pacs, local_ray, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("id,boneage\n" + "".join(f"{uid_of(hand(number))},{60 + number}\n" for number in range(8)))
    arguments = pipeline.PrepareArguments(
        f"{pacs.uri}?Modality=DX", "demo", str(tmp_path / "data"), labels=str(labels), settings=SMALL
    )
    answer = run(pipeline.prepare, arguments).answer
    assert (answer["train"] + answer["val"] + answer["test"], answer["rejected"]) == (8, 2)
