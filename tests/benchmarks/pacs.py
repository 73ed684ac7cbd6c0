"""A PACS scored and answered: every instance has its row, whatever is killed or stopped, and the results are found by QIDO-RS.

    python tests/benchmarks/pacs.py --work DIR --count 200

A real Orthanc with its DICOMweb plugin keeps synthetic hands, each a study of its own. One run goes undisturbed; of another the
command is killed, and later the server is stopped for longer than a request waits. Both must leave the same rows.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
from common import machine

sys.path.insert(0, str(Path(__file__).parents[1]))
from orthanc import PASSWORD, USER, run_orthanc

from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.storage import dicomweb, dicomweb_source


def command(*words):
    """The console command, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "boneage_ray", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, code=0):
    """Wait for a command; its seconds count from its start."""
    said = process.communicate()[1]
    assert process.returncode == code, said
    return said


def rows_of(out):
    """URI -> what was predicted, and the reason where nothing was."""
    rows = ds.dataset(f"{out}/results").to_table(columns=["input_uri", "status", "reason", "age_months"]).to_pylist()
    found = {row["input_uri"]: tuple(row.values())[1:] for row in rows}
    assert len(found) == len(rows)
    return found


def parts_of(out):
    """The names of the committed parts."""
    folder = out / "results"
    return {path.name for path in folder.iterdir() if path.name.startswith("part-")} if folder.exists() else set()


def wait_for_parts(process, out, count):
    """Wait until so many parts are committed while the command runs."""
    while len(parts_of(out)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def disturbed(server, reopen, score, out):
    """Kill the command, continue it, stop the server under it, start the server again and continue."""
    process = command(*score, out)
    wait_for_parts(process, out, 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = parts_of(out)
    process = command(*score, out)
    wait_for_parts(process, out, len(killed) + 1)
    server.stop()
    said = ended(process, code=2)
    stopped, rows = parts_of(out), rows_of(out)
    print(f"killed with {len(killed)} parts; server stopped with {len(stopped)}, {len(rows)} rows:")
    print(f"  {said.strip().splitlines()[-1]}", flush=True)
    assert all(status == "scored" for status, _, _ in rows.values()), rows
    with reopen():
        ended(command(*score, out))


def timed(title, words):
    """Run a command to its end and print its seconds."""
    started = time.monotonic()
    ended(command(*words))
    print(f"{title}: {time.monotonic() - started:.1f} s", flush=True)


def main():
    """Store, score undisturbed and disturbed, send back, find."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    given = parser.parse_args()
    os.environ |= {"BONEAGE_DICOMWEB_USER": USER, "BONEAGE_DICOMWEB_PASSWORD": PASSWORD}
    print(machine(), f"{given.count} instances, load {os.getloadavg()[0]:.0f}")
    place, port = given.work / "orthanc", None
    with run_orthanc(place) as server:
        port = server.port
        tags = {"PatientName": "Nobody^Nora", "PatientID": "NB-4711"}
        for k in range(given.count):
            image = hand_phantom(k, 24 + k % 180, "FM"[k % 2], given.size).image
            server.store([encode_dicom(image, DicomTags(k, sex="FM"[k % 2], spacing_mm=(0.3, 0.3), extra=tags))])
        score = ["score", f"{server.uri}?Modality=DX", "--model", "hand", "--out"]
        timed("scored undisturbed", [*score, given.work / "whole"])
        disturbed(server, lambda: run_orthanc(place, port), score, given.work / "broken")
    whole, broken = rows_of(given.work / "whole"), rows_of(given.work / "broken")
    assert len(whole) == given.count
    assert whole == broken
    print(f"{len(whole)} rows, {sum(status == 'scored' for status, _, _ in whole.values())} scored; both runs equal")
    with run_orthanc(place, port) as server:
        formats = ["--format", "dicom-sr", "--format", "dicom-sc"]
        timed("reports and pictures sent back", ["export", given.work / "whole", *formats, "--to", server.uri])
        parsed = dicomweb_source.parsed_address(server.uri)
        for modality in ("SR", "OT"):
            found = dicomweb_source.search(parsed, "instances", {"Modality": modality}, ["00080018"])
            print(f"found by QIDO-RS: {len(found)} instances of modality {modality}")
        timed("updated, nothing new", [*score, given.work / "whole", "--update"])
        assert rows_of(given.work / "whole") == whole
        timed("everything without a filter", ["score", server.uri, "--model", "hand", "--out", given.work / "all"])
        assert rows_of(given.work / "all") == whole
        assert dicomweb.is_dicomweb(server.uri)


if __name__ == "__main__":
    main()
