"""What of a person is kept where: identities are planted in tags, files and folders, and looked for in all files of OUT."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from pipelines.steps import SMALL, run

from boneage_ray.commands import pipeline
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom, file_bytes
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.runtime.marks import read_marks

pytestmark = pytest.mark.ray
IN_TAGS = ("Zyxwina", "Qvorbeck", "PID774411", "ACC998877", "Kommentarjx", "19870302", "Klinikumwq", "Drfeldmausz")
IN_NAMES = ("Vornamezq", "Ordnerzw")
IN_TABLES = ("TABPAT5533",)
TAGS = {
    "PatientName": "Qvorbeck^Zyxwina",
    "PatientID": "PID774411",
    "OtherPatientIDs": "PID774411",
    "PatientBirthDate": "19870302",
    "StudyDate": "19990302",
    "AccessionNumber": "ACC998877",
    "PatientComments": "Kommentarjx",
    "ImageComments": "Kommentarjx",
    "StudyDescription": "Kommentarjx",
    "SeriesDescription": "Kommentarjx Qvorbeck",
    "ProtocolName": "Kommentarjx",
    "PatientAddress": "Kommentarjx",
    "InstitutionName": "Klinikumwq",
    "StationName": "Klinikumwq",
    "ReferringPhysicianName": "Drfeldmausz",
    "OperatorsName": "Drfeldmausz",
    "RequestedProcedureDescription": "Kommentarjx",
    "StudyID": "ACC998877",
    "PatientSex": "F",
}


def hand(number, **more):
    dataset = pydicom.dcmread(
        io.BytesIO(encode_dicom(hand_phantom(number, 100 + number, "F", 96).image, DicomTags(number)))
    )
    for keyword, value in {**TAGS, **more}.items():
        setattr(dataset, keyword, value)
    return file_bytes(dataset)


@pytest.fixture
def films(tmp_path):
    """Sound and broken files, all with a person in their tags, names and folders."""
    root = tmp_path / "films"
    folder = root / "Ordnerzw"
    folder.mkdir(parents=True)
    for number in range(12):
        (folder / f"Vornamezq_{number}.dcm").write_bytes(hand(number))
    whole = hand(20)
    (folder / "Vornamezq_cut.dcm").write_bytes(whole[:-500])
    (folder / "Vornamezq_nul.dcm").write_bytes(
        hand(21, SpecificCharacterSet="ISO_IR 100").replace(b"ISO_IR 100", b"ISO_IR\x00100")
    )
    (folder / "Vornamezq_bad.dcm").write_bytes(hand(22, PixelSpacing=None, Rows=1, PatientAge="099D"))
    (folder / "Vornamezq_txt.dcm").write_text("Qvorbeck, Zyxwina, PID774411")
    os.mkfifo(folder / "Vornamezq_pipe")
    table = tmp_path / "table.csv"
    rows = [f"Vornamezq_{number}.dcm,{60 + number},F,TABPAT5533{number}" for number in range(12)]
    table.write_text(
        "\n".join(
            ["id,boneage,sex,patient", *rows, "Vornamezq_none,50,F,TABPAT5533x", "Vornamezq_2.dcm,9,M,TABPAT55332"]
        )
    )
    return root, table


def everything(folder):
    """(path, text) of all files: Parquet as its values and metadata, all else as its bytes."""
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            values = {name: table[name].to_pylist() for name in table.column_names}
            yield path, json.dumps(values, default=repr) + repr(table.schema.metadata)
        else:
            yield path, path.read_bytes().decode("latin-1")


def found(folder, secrets):
    """(file, secret) of each that is there, in names too."""
    return sorted(
        {
            (path.relative_to(folder).as_posix(), secret)
            for path, text in everything(folder)
            for secret in secrets
            if secret in text or secret in path.relative_to(folder).as_posix()
        }
    )


def left_behind(since):
    """(where, text) of what is outside of OUT: Ray's logs, its metrics, and temporary files that are still there."""
    import ray

    (node,) = ray.nodes()
    for path in sorted((Path(node["RayletSocketName"]).parents[1] / "logs").rglob("*")):
        if path.is_file():
            yield path.name, path.read_bytes().decode("latin-1")
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as page:
        yield "metrics", page.read().decode()
    for path in Path(tempfile.gettempdir()).iterdir():
        with suppress(OSError):  # of somebody else, who has ended
            if path.is_file() and path.stat().st_mtime >= since:
                yield path.name, path.read_bytes().decode("latin-1")


def test_nothing_of_a_person_is_left_in_logs_metrics_and_temporary_files(films, model, tmp_path):
    since = time.time()
    root, _ = films
    packed = shutil.make_archive(
        str(tmp_path / "packed"), "gztar", root
    )  # spooled to a temporary file while it is read
    for source, keep in ((str(root), "hash"), (packed, "uri")):
        run(pipeline.score, pipeline.ScoreArguments(source, model, str(tmp_path / keep), keep=keep))
    looked = dict(left_behind(since))
    assert "metrics" in looked
    assert "ray_boneage_score_files_total" in looked["metrics"]
    assert any(name.startswith("worker-") for name in looked)
    secrets = (*IN_TAGS, *IN_TABLES, *IN_NAMES)
    assert [(name, secret) for name, text in looked.items() for secret in secrets if secret in text] == []


def test_scores_keep_nothing_of_a_person_but_what_was_asked_for(films, model, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    root, table = films
    scores = {}
    for keep in ("uri", "stem", "uid", "hash"):
        out = tmp_path / keep
        metadata = tmp_path / "metadata.csv"
        metadata.write_text(table.read_text().replace("boneage", "age_years_unused"))
        run(pipeline.score, pipeline.ScoreArguments(str(root), model, str(out), str(metadata), keep=keep))
        assert found(out, (*IN_TAGS, *IN_TABLES)) == []
        scores[keep] = pq.read_table(out / "results").to_pylist()
        # By the marks, which are hashes of names, anyone who guesses a name finds it.
        held = b"".join(read_marks(str(path)) for path in (out / "results").iterdir())
        assert len(held) == (16 * len(scores[keep]) if keep == "uri" else 0)
    assert {secret for _, secret in found(tmp_path / "uri", IN_NAMES)} == set(IN_NAMES)
    assert {secret for _, secret in found(tmp_path / "stem", IN_NAMES)} == {"Vornamezq"}
    assert found(tmp_path / "uid", IN_NAMES) == []
    assert found(tmp_path / "hash", IN_NAMES) == []
    said = "".join(capfd.readouterr()) + caplog.text
    assert [secret for secret in (*IN_TAGS, *IN_TABLES) if secret in said] == []

    whole = {row["input_uri"].rpartition("/")[2].removesuffix(".dcm"): row for row in scores["uri"]}
    assert len(whole) == 17
    assert sum(row["status"] == "scored" for row in whole.values()) >= 13
    assert {row["input_uri"] for row in scores["stem"]} == set(whole)
    read = [row for row in scores["hash"] if row["input_sha256"]]
    assert all(row["input_uri"] == row["input_sha256"] for row in read)
    unread = [row["input_uri"] for row in scores["hash"] if not row["input_sha256"]]
    assert len(unread) == 1
    assert re.fullmatch(r"results/part-\d{5}.parquet:\d+", unread[0])
    uids = {row["input_sha256"]: row["input_uri"] for row in scores["uid"]}
    assert all(uids[row["input_sha256"]] == (row["sop_uid"] or row["input_sha256"]) for row in read)
    # The names are all that differs.
    for keep in ("stem", "uid", "hash"):
        assert [row["age_months"] for row in scores[keep]] == [row["age_months"] for row in scores["uri"]]


def test_scores_without_names_continue_and_are_not_updated(films, model, tmp_path):
    root, _ = films
    out = tmp_path / "hash"

    def score(**flags):
        return run(pipeline.score, pipeline.ScoreArguments(str(root), model, str(out), **flags)).answer

    with pytest.raises(
        UsageError, match="--update with --keep hash: an update finds the row of an input by the input's name"
    ):
        score(keep="hash", update=True)
    assert not out.exists()
    first = score(keep="hash")
    assert score(keep="hash") == first
    with pytest.raises(
        MismatchError, match=r"hash was scored with --keep hash: .*which was not kept; give another --out"
    ):
        score(update=True)
    with pytest.raises(MismatchError, match="; --keep was hash, is uid"):
        score(keep="uid")
    (root / "Ordnerzw" / "Vornamezq_3.dcm").unlink()
    with pytest.raises(MismatchError, match="the archive has changed since this run began") as changed:
        score(keep="hash")
    assert [secret for secret in (*IN_NAMES, "--update") if secret in str(changed.value)] == []
    assert found(out, (*IN_TAGS, *IN_NAMES)) == []


def test_prepared_data_keep_the_names_of_files_and_nothing_else_of_a_person(films, local_ray, tmp_path, capfd):
    root, table = films
    out = tmp_path / "data"
    run(pipeline.prepare, pipeline.PrepareArguments(str(root), "demo", str(out), labels=str(table), settings=SMALL))
    assert found(out, (*IN_TAGS, *IN_TABLES)) == []
    said = "".join(capfd.readouterr())
    assert [secret for secret in (*IN_TAGS, *IN_TABLES) if secret in said] == []
    assert not (out / "cases").exists()
    assert {secret for _, secret in found(out, IN_NAMES)} == set(IN_NAMES)
