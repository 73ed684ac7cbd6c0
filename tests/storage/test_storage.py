"""The storage room on every kind of storage (local, memory://, a real S3 server), and local folders."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from boneage_ray import storage
from boneage_ray.storage.errors import translated

MEBIBYTE = 2**20


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    """A folder or prefix that is not there yet, one for each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "new" / "folder")
    if request.param == "memory":
        return f"memory://{tmp_path.name}/folder"
    return f"{request.getfixturevalue('s3_bucket')}/folder"


# Every kind of storage


def test_bytes_text_and_json_come_back_as_written(folder):
    storage.write_bytes(f"{folder}/a", b"\x00\xff")
    storage.write_bytes(f"{folder}/a", b"second")
    storage.write_text(f"{folder}/b/t", "Röntgen")
    storage.write_json(f"{folder}/b/j", {"ä": [1, None]})
    assert storage.read_bytes(f"{folder}/a") == b"second"
    assert storage.read_bytes(f"{folder}/b/t") == "Röntgen".encode()
    assert storage.read_text(f"{folder}/b/j") == '{\n  "ä": [\n    1,\n    null\n  ]\n}\n'
    assert storage.read_json(f"{folder}/b/j") == {"ä": [1, None]}


@pytest.mark.parametrize(
    ("start", "length", "found"), [(2, 3, b"234"), (8, 5, b"89"), (10, 5, b""), (99, 5, b""), (4, 0, b"")]
)
def test_a_range_is_read_and_ends_where_the_file_does(folder, start, length, found):
    storage.write_bytes(f"{folder}/a", b"0123456789")
    assert storage.read_range(f"{folder}/a", start, length) == found


def test_a_range_of_an_absent_file_is_not_found(folder, refusal):
    assert refusal(storage.read_range, f"{folder}/a", 0, 5)[0] == "not_found"


def test_names_are_taken_as_they_are(folder):
    names = ["100%.png", "a b/c+d.png", "ä/日本.png", "q?x=1&y#z"]
    for name in names:
        storage.write_bytes(storage.join(folder, name), name.encode())
    assert [file.uri for file in storage.list_files(folder)] == [f"{folder}/{name}" for name in sorted(names)]
    assert [storage.read_bytes(file.uri).decode() for file in storage.list_files(folder)] == sorted(names)


def test_listing_is_in_byte_order_with_sizes_and_hidden_files(folder):
    # "." and "-" stand before "/", which stands before letters: the order in which S3 answers.
    names = ["a-b/x", "a.png", "a/.hidden", "a/b/c", "aa", "é", "z"]
    for size, name in reversed(list(enumerate(names))):
        storage.write_bytes(f"{folder}/{name}", b"." * size)
    storage.write_bytes(f"{folder}2/other", b"not below")
    expected = [(f"{folder}/{name}", size, None) for size, name in enumerate(names)]
    expected = sorted(expected, key=lambda item: item[0].encode())
    assert [info[:3] for info in storage.list_files(folder)] == expected
    assert [info[:3] for info in storage.list_files(f"{folder}/")] == expected
    assert [info[:3] for info in storage.list_files(f"{folder}/aa")] == [(f"{folder}/aa", 4, None)]


def test_list_folder_is_flat(folder):
    for name in ("b", "a/c", ".d", "é"):
        storage.write_bytes(f"{folder}/{name}", b"12")
    expected = [(f"{folder}/{name}", 2, None) for name in (".d", "b", "é")]
    assert [info[:3] for info in storage.list_folder(folder)] == expected
    assert storage.list_folder(f"{folder}/b") == []
    assert storage.list_folder(f"{folder}/none") == []


def test_absent_things_are_absent(folder, refusal):
    assert not storage.exists(folder)
    assert storage.is_empty(folder)
    storage.delete_tree(folder)
    for action in (storage.read_bytes, storage.sha256, lambda uri: list(storage.list_files(uri))):
        reason, message = refusal(action, folder)
        assert reason == "not_found"
        assert message.startswith(folder)


def test_delete_tree_takes_the_folder_and_nothing_else(folder):
    for name in ("x/1", "x/y/2", "x2"):
        storage.write_bytes(f"{folder}/{name}", b"1")
    assert storage.exists(f"{folder}/x")
    assert storage.exists(f"{folder}/x/1")
    assert not storage.is_empty(folder)
    storage.delete_tree(f"{folder}/x")
    assert [file.uri for file in storage.list_files(folder)] == [f"{folder}/x2"]
    storage.delete_tree(f"{folder}/x2")
    assert storage.is_empty(folder)


def test_streams_read_seek_and_write(folder):
    with storage.open_write(f"{folder}/s") as file:
        file.write(b"hello ")
        file.write(b"world")
    with storage.open_read(f"{folder}/s") as file:
        assert file.read(5) == b"hello"
        file.seek(-5, io.SEEK_END)
        assert file.read() == b"world"
    assert storage.sha256(f"{folder}/s") == hashlib.sha256(b"hello world").hexdigest()
    with storage.open_write(f"{folder}/empty"):
        pass
    assert storage.read_bytes(f"{folder}/empty") == b""


@pytest.mark.parametrize("size", [3, 20 * MEBIBYTE])
def test_a_failed_body_leaves_the_old_file_and_no_trace(folder, size):
    storage.write_bytes(f"{folder}/f", b"old")
    with pytest.raises(OSError, match="own error of the body"), storage.open_write(f"{folder}/f") as file:
        for start in range(0, size, MEBIBYTE):
            file.write(b"x" * min(MEBIBYTE, size - start))
        raise OSError("own error of the body")
    assert storage.read_bytes(f"{folder}/f") == b"old"
    assert [file.uri for file in storage.list_files(folder)] == [f"{folder}/f"]


def test_check_writable_leaves_nothing(folder):
    storage.check_writable(folder)
    assert storage.is_empty(folder)


def test_arrow_reads_and_writes_parquet(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    filesystem, path = storage.arrow_filesystem(f"{folder}/p/part-0.parquet")
    pq.write_table(pa.table({"age_months": [12.5, 30.0]}), path, filesystem=filesystem)
    assert pq.read_table(path, filesystem=filesystem).to_pydict() == {"age_months": [12.5, 30.0]}
    assert storage.read_bytes(f"{folder}/p/part-0.parquet")[:4] == b"PAR1"


def test_invalid_text_and_json(folder, refusal):
    storage.write_bytes(f"{folder}/t", b"ab\xff")
    assert refusal(storage.read_text, f"{folder}/t") == ("unreadable", f"{folder}/t: not UTF-8 text (byte 2)")
    storage.write_bytes(f"{folder}/j", b"{1}")
    assert refusal(storage.read_json, f"{folder}/j")[1].startswith(f"{folder}/j: not JSON (Expecting property")
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(f"{folder}/n", float("nan"))


# Names


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("s3://b",), "s3://b"),
        (("s3://b/", "x", "y.png"), "s3://b/x/y.png"),
        (("s3://b/x", "/y/", ""), "s3://b/x/y"),
        (("memory://", "x"), "memory://x"),
        (("/", "x"), "/x"),
        (("data", "x"), "data/x"),
    ],
)
def test_join(parts, joined):
    assert storage.join(*parts) == joined


def test_local_locations_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert storage.locate("a/b.png").uri == str(tmp_path / "a/b.png")
    assert storage.locate("file:///a/b").uri == "/a/b"
    assert storage.locate("~/a").path == "/home/somebody/a"
    assert storage.locate("~x/a").path == str(tmp_path / "~x/a")


def test_unknown_schemes_name_the_package_where_one_is_known(refusal):
    assert refusal(storage.locate, "gs://b/x")[1] == (
        "gs://b/x: gs:// cannot be used here: Please install gcsfs to access Google Storage"
    )
    assert refusal(storage.locate, "floppy://a")[1] == (
        "floppy://a: floppy:// cannot be used here: Protocol not known: floppy"
    )


@pytest.mark.parametrize("uri", ["/", "s3://bucket", "s3://bucket/", "memory://"])
def test_roots_and_buckets_are_never_deleted(uri, s3_environment, refusal):
    assert refusal(storage.delete_tree, uri)[0] == "permission_denied"


def test_importing_storage_loads_no_filesystem():
    code = "import sys, boneage_ray.storage; print({'fsspec', 's3fs', 'pyarrow', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Local folders


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f").write_bytes(b"1234")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "linked" / "back").symlink_to(root)
    (root / "dangling").symlink_to(tmp_path / "gone")
    (root / "self").symlink_to("self")
    assert [info[:3] for info in storage.list_files(str(root))] == [
        (f"{root}/dangling", 0, None),
        (f"{root}/linked/f", 4, None),
        (f"{root}/self", 0, None),
    ]
    storage.delete_tree(str(root))
    assert (tmp_path / "elsewhere" / "f").exists()


def test_a_link_to_itself_and_too_long_a_name_are_absent(tmp_path, refusal):
    link = tmp_path / "self"
    link.symlink_to(link)
    assert not storage.exists(str(link))
    assert storage.is_empty(str(link))
    assert refusal(storage.read_bytes, str(link)) == ("not_found", f"{link}: this link leads to itself")
    assert not storage.exists(f"{tmp_path}/{'n' * 256}")
    assert storage.is_empty(f"{tmp_path}/{'n' * 256}")
    said = refusal(storage.read_bytes, f"{tmp_path}/{'n' * 256}")
    assert (said[0], said[1].rpartition(": ")[2]) == ("not_found", "this file name is too long")


def test_what_is_no_file_has_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "a")
    (tmp_path / "b").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("c")  # the whole path may be too long for it
    assert [info.problem for info in storage.list_files(str(tmp_path))] == [
        ("unsupported_format", f"{kind}, not a file") for kind in ("a named pipe", "a device", "a socket")
    ]
    (alone,) = storage.list_files(str(tmp_path / "a"))
    assert alone[:3] == (f"{tmp_path}/a", 0, ("unsupported_format", "a named pipe, not a file"))
    assert storage.list_folder(str(tmp_path)) == []


def test_list_folder_follows_links_to_files_only(tmp_path):
    (tmp_path / "f").write_bytes(b"1234")
    (tmp_path / "folder").mkdir()
    for name, target in (("l", "f"), ("m", "folder"), ("gone", "nothing"), ("self", "self")):
        (tmp_path / name).symlink_to(target)
    listed = [info[:3] for info in storage.list_folder(str(tmp_path))]
    assert listed == [(f"{tmp_path}/f", 4, None), (f"{tmp_path}/l", 4, None)]


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EACCES, "permission_denied"), (errno.ENOENT, "not_found"), (errno.ENAMETOOLONG, "unreadable")],
)
def test_a_folder_that_cannot_be_listed_does_not_end_the_listing(tmp_path, monkeypatch, refusal, number, reason):
    for name in ("a/1", "b/2", "c"):
        storage.write_bytes(f"{tmp_path}/{name}", b"12")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("/a"):
            raise OSError(number, "closed", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    listed = [(info.uri, info.size, info.problem and info.problem[0]) for info in storage.list_files(str(tmp_path))]
    assert listed == [(f"{tmp_path}/a", 0, reason), (f"{tmp_path}/b/2", 2, None), (f"{tmp_path}/c", 2, None)]
    assert refusal(lambda: list(storage.list_files(f"{tmp_path}/a")))[1].startswith(f"{tmp_path}/a: ")


def test_another_filesystem_that_cannot_list_a_folder_ends_the_listing(tmp_path, monkeypatch, refusal):
    for name in ("a/1", "b/c/2", "3"):
        storage.write_bytes(f"{tmp_path}/{name}", b"12")
    folder = f"local://{tmp_path}"  # as fsspec lists it
    assert [info.uri for info in storage.list_files(folder)] == [f"{folder}/{name}" for name in ("3", "a/1", "b/c/2")]
    (alone,) = storage.list_files(f"{folder}/b/c/2")
    assert (alone.uri, alone.size, bool(alone.version)) == (f"{folder}/b/c/2", 2, True)
    scandir = os.scandir

    def closed(path):
        if str(path).rstrip("/").endswith("/c"):
            raise PermissionError(errno.EACCES, "closed", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert refusal(lambda: list(storage.list_files(folder)))[0] == "permission_denied"


def test_a_file_whose_state_is_refused_is_still_listed(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"12")
    state = Path.stat

    def refused(self, **options):
        if self.name == "a":
            raise PermissionError(errno.EACCES, "refused", str(self))
        return state(self, **options)

    monkeypatch.setattr(Path, "stat", refused)
    listed = [info[:3] for info in storage.list_files(str(tmp_path))]
    assert listed == [(f"{tmp_path}/a", 0, None), (f"{tmp_path}/b", 2, None)]


def test_folders_nested_without_end_are_listed_to_a_depth(tmp_path):
    deep = tmp_path
    for _ in range(250):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (tmp_path / "z").write_bytes(b"1")
    first, second = storage.list_files(str(tmp_path))
    assert first[:3] == (
        f"{tmp_path}{'/d' * 200}",
        0,
        ("unreadable", "this folder is 200 folders deep and is not listed; move it further up"),
    )
    assert second.uri == f"{tmp_path}/z"


def test_local_files_get_the_usual_mode(tmp_path):
    storage.write_bytes(str(tmp_path / "f"), b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_local_refusals(tmp_path, refusal):
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "x")
    assert not storage.exists(below)
    reason = "there is a file where a folder is needed"
    assert refusal(storage.check_writable, str(tmp_path / "file")) == (
        "unreadable",
        f"cannot write: {tmp_path}/file: {reason}",
    )
    assert refusal(storage.write_bytes, below, b"") == ("unreadable", f"{below}: {reason}")
    assert refusal(storage.read_bytes, below)[1] == f"{below}: a part of this path is a file, not a folder"
    assert refusal(storage.read_bytes, str(tmp_path)) == (
        "unreadable",
        f"{tmp_path}: this is a folder, not a file",
    )


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (
            PermissionError(13, "no", "/a/b/c"),
            "permission_denied",
            "/a/b/c: access denied; check the permissions",
        ),
        (OSError(28, "full"), "unreadable", "/a: no space is left on the device"),
        (OSError(30, "ro"), "permission_denied", "/a: the file system is read-only"),
        (OSError("odd\nthing"), "unreadable", "/a: OSError: odd thing"),
    ],
)
def test_errors_that_only_some_machines_have(error, reason, message, refusal):
    def fail():
        with translated("/a"):
            raise error

    found = refusal(fail)
    assert found[0] == reason
    assert found[1].startswith(message)
