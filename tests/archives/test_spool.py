"""A compressed tar file is unpacked once on a node, whoever reads it, and whoever is killed meanwhile."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time

import pytest

from boneage_ray.archives import spool
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.read import read_input
from boneage_ray.errors import InputProblem, StorageError

ENTRIES = [random.Random(k).randbytes(300_000) for k in range(12)]

# A worker: reads the entries of a tar file, and tells their hashes and how often it unpacked. With `stop` it unpacks the first
# megabyte only. It ends when it is told to.
WORKER = """
import hashlib, json, sys, time
from boneage_ray.archives import spool
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.read import read_input
begun, plain = [], spool.unpacked
class Stopping:
    def __init__(self, stream):
        self.stream, self.chunks = stream, 0
    def read1(self, count):
        self.chunks += 1
        if self.chunks > 3:
            print("stopped", flush=True)
            time.sleep(600)
        return self.stream.read1(count)
def unpacked(file):
    begun.append(file)
    return Stopping(plain(file)) if "stop" in sys.argv else plain(file)
spool.unpacked = unpacked
print("reads", flush=True)
found = [hashlib.sha256(read_input(item)).hexdigest() for item in FilesArchive(sys.argv[1]).inputs()]
print(json.dumps([found, len(begun)]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A compressed tar file of 12 entries, and a TMPDIR of its own."""
    path = tmp_path / "films.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as made:
        for number, data in enumerate(ENTRIES):
            info = tarfile.TarInfo(f"{number:02d}.png")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(spool.tempfile, "tempdir", None)
    spool._folder.cache_clear()
    yield path
    spool._folder.cache_clear()


@pytest.fixture
def worker(packed):
    """worker(*flags) starts one; all end with the test."""
    started = []

    def start(*flags):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", WORKER, str(packed), *flags], **pipes))
        assert started[-1].stdout.readline() == "reads\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def told(process):
    return json.loads(process.stdout.readline())


def left(packed):
    """What is left in TMPDIR, with its size."""
    return [path.stat().st_size for path in (packed.parent / "tmp").rglob("*") if path.is_file()]


def test_two_workers_of_a_node_unpack_a_tar_file_once(worker, packed):
    first, second = worker(), worker()
    (one, begun), (two, again) = told(first), told(second)
    assert one == two == [spool.hashlib.sha256(data).hexdigest() for data in ENTRIES]
    assert begun + again == 1
    assert sum(left(packed)) < 1000  # the file itself has no name
    for process in (first, second):
        process.communicate("")
        assert process.returncode == 0


def test_a_worker_that_is_killed_while_it_unpacks_leaves_nothing_half(worker, packed):
    first = worker("stop")
    assert first.stdout.readline() == "stopped\n"
    second = worker()
    time.sleep(0.5)  # now it most likely waits for the first one; what follows holds either way
    first.kill()
    found, begun = told(second)
    assert found == [spool.hashlib.sha256(data).hexdigest() for data in ENTRIES]
    assert begun == 1
    second.kill()
    second.wait()
    assert sum(left(packed)) < 1000
    assert spool._folder() is not None  # of the next process
    assert left(packed) == []


def test_a_full_disk_is_named_and_what_was_unpacked_before_is_read(packed, monkeypatch):
    write = spool._written

    def full(copy, data, offset):
        if offset + len(data) > 2_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(copy, data, offset)

    monkeypatch.setattr(spool, "_written", full)
    found = [read_input(item) for item in FilesArchive(str(packed)).inputs()]
    assert found[0] == ENTRIES[0]
    assert isinstance(found[-1], InputProblem)
    assert (found[-1].step, found[-1].reason) == ("read", "unreadable")
    assert found[-1].message == (
        f"{packed.parent}/tmp: no space is left on the device; a tar file is unpacked there: set TMPDIR to a disk with room"
    )


def test_a_storage_that_failed_is_asked_again(packed, monkeypatch):
    opened, answers = spool.storage.open_read, [StorageError("unreadable", "503 SlowDown")]

    def sometimes(uri):
        if answers:
            raise answers.pop()
        return opened(uri)

    items = list(FilesArchive(str(packed)).inputs())
    monkeypatch.setattr(spool.storage, "open_read", sometimes)
    assert read_input(items[3]).message == "503 SlowDown"
    assert read_input(items[3]) == ENTRIES[3]


def test_a_folder_of_somebody_else_is_not_used(packed):
    folder = packed.parent / "tmp" / f"boneage-unpacked-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert spool._folder() is None
    (item, *_) = FilesArchive(str(packed)).inputs()
    assert read_input(item) == ENTRIES[0]
    assert left(packed) == []
