"""The programs of dcmtk, which share no code with ours. Without them a test is skipped, but never in CI."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest


def dcmtk(program):
    """The path of a program of dcmtk; skips the test where it is not installed."""
    places = (shutil.which(program, path=folder) for folder in os.get_exec_path())
    # pynetdicom installs scripts of the same names.
    path = next((place for place in places if place and Path(place).read_bytes()[:2] != b"#!"), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is missing: apt-get install dcmtk")
        pytest.skip(f"{program} is not installed (Debian package dcmtk)")
    return path


def shown_by_dcmtk(data, folder, *options):
    """(rows, columns) or (rows, columns, 3) as dcmtk shows a file, 8 bits, with its first window unless options say otherwise."""
    (folder / "in.dcm").write_bytes(data)
    syntax = "dcml2pnm" if b"1.2.840.10008.1.2.4.8" in data[:600] else "dcmj2pnm"
    said = subprocess.run(
        [dcmtk(syntax), *(options or ("+Wi", "1")), str(folder / "in.dcm"), str(folder / "out.pnm")],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return cv2.imread(str(folder / "out.pnm"), cv2.IMREAD_UNCHANGED)


def by_dcmtk(program, data, folder, *options):
    """A file as one of dcmtk's programs (dcmcrle, dcmcjpeg, dcmcjpls) writes it again."""
    (folder / "plain.dcm").write_bytes(data)
    files = [str(folder / name) for name in ("plain.dcm", "packed.dcm")]
    subprocess.run([dcmtk(program), *options, *files], check=True, capture_output=True)
    return (folder / "packed.dcm").read_bytes()


@contextmanager
def storescp(folder, port, *options):
    """dcmtk's node, which writes what it takes into a folder."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen([dcmtk("storescp"), "-od", str(folder), *options, str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("the node did not start")
