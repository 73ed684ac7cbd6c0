"""A real Orthanc with its DICOMweb plugin, for tests: a PACS on a port of its own, with a user and a folder of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "radiology", "not-a-secret-but-unlike-others"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def run_orthanc(folder, port=None, nodes=None):
    """A running server: `uri` for boneage, `address` for others, `store(files)`, `delete(instance)`, `stop()` to end it.

    `nodes`: AE title -> port on this machine of DICOM nodes that it knows; it then is one itself, ORTHANC at `dicom_port`. Skips
    without Orthanc, but fails in CI.
    """
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.exists():
        missing = "Orthanc is not installed (Debian packages orthanc and orthanc-dicomweb)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    port, dicom_port = port or free_port(), free_port()
    settings = {
        "Name": "boneage tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": nodes is not None,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowMove": True,
        "DicomPort": dicom_port,
        "DicomModalities": {title: [title, "127.0.0.1", known] for title, known in (nodes or {}).items()},
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(process, f"http://127.0.0.1:{port}/system", folder / "log")
        root = f"http://127.0.0.1:{port}"
        yield SimpleNamespace(
            uri=f"dicomweb+{root}/dicom-web",
            address=f"{root}/dicom-web",
            port=port,
            dicom_port=dicom_port,
            store=lambda files: [_call(root, "/instances", "POST", data)["Status"] for data in files],
            delete=lambda sop_uid: [
                _call(root, f"/instances/{found}", "DELETE")
                for found in _call(root, "/tools/lookup", "POST", sop_uid.encode(), "ID")
            ],
            stop=lambda: _stop(process),
        )
    finally:
        _stop(process)


def _call(root, path, method, data=None, only=None):
    """One request of Orthanc's own interface; `only`: of a list of objects this key."""
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    request = urllib.request.Request(root + path, data, {"Authorization": f"Basic {token}"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        value = json.load(answer)
    return [one[only] for one in value] if only else value


def _wait(process, address, log):
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError as error:  # it asks for a password: it is there
            error.close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


def _stop(process):
    if process.poll() is None:
        process.terminate()
        process.wait(30)
