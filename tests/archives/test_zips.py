"""Zip files: what is in them, and what hostile or broken ones do."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.read import read_input
from boneage_ray.errors import InputProblem

PIXELS = bytes(range(256)) * 40


@pytest.fixture
def packed(tmp_path):
    """packed({name: bytes}, method) is the path of a zip file."""

    def write(members, method=zipfile.ZIP_DEFLATED, name="scans.zip"):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", method) as made:
            for member, data in members.items():
                made.writestr(member, data)
        return path

    return write


def listed(path):
    """(name in the archive or the archive's own, reason) of every input."""
    uris = [
        (item.uri.rpartition("!/")[2] if "!/" in item.uri else "", item.problem)
        for item in FilesArchive(str(path)).inputs()
    ]
    return [(name, problem and problem[0]) for name, problem in uris]


def contents(path):
    """What reading each input gives: bytes, or (step, reason)."""
    read = map(read_input, FilesArchive(str(path)).inputs())
    return [(data.step, data.reason) if isinstance(data, InputProblem) else data for data in read]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_inputs_in_the_order_of_the_zip_file(packed, method):
    path = packed({"b/2.png": PIXELS, "a/1.dcm": b"", "3": b"x"}, method)
    items = list(FilesArchive(str(path)).inputs())
    assert [(i.uri, i.record_id, i.size_bytes, i.problem) for i in items] == [
        (f"{path}!/b/2.png", "2", len(PIXELS), None),
        (f"{path}!/a/1.dcm", "1", 0, None),
        (f"{path}!/3", "3", 1, None),
    ]
    assert contents(path) == [PIXELS, b"", b"x"]
    assert [read_input(Input(item.uri, "x")) for item in items] == [PIXELS, b"", b"x"], "the URI alone is enough"


def test_a_zip_file_met_in_a_folder_stands_for_its_members(packed, tmp_path):
    packed({"1.png": PIXELS}, name="m.ZIP")
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "z.png").write_bytes(b"z")
    items = list(FilesArchive(str(tmp_path)).inputs())
    assert [i.uri.removeprefix(f"{tmp_path}/") for i in items] == ["a.png", "m.ZIP!/1.png", "z.png"]
    assert contents(tmp_path) == [b"a", PIXELS, b"z"]


def test_metadata_names_members(packed, tmp_path):
    path = packed({"a/1.png": PIXELS, "b/2.png": PIXELS, "b/3.png": PIXELS})
    table = tmp_path / "meta.csv"
    table.write_text(f"id,sex\na/1.png,F\n2,M\n{path}!/b/3.png,F\n")
    assert [i.sex for i in FilesArchive(str(path), str(table)).inputs()] == ["F", "M", "F"]


def test_folders_and_system_files_are_left_out_and_links_reported(packed, tmp_path):
    path = packed(
        {
            "a/": b"",
            "a/.DS_Store": b"1",
            "__MACOSX/a/._1.png": b"1",
            "a/Thumbs.db": b"1",
            "._2.png": b"1",
            "a/1.png": b"1",
        }
    )
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(link, "/etc/passwd")
    assert listed(path) == [("a/1.png", None), ("link.png", "unsupported_format")]
    assert contents(path) == [b"1", ("list", "unsupported_format")]


def test_bytes_under_the_name_of_a_folder_are_not_passed_over(packed):
    path = packed({"empty/": b"", "odd\\": b"x", "folder/": b"yz"})
    assert listed(path) == [("odd/", None), ("folder/", None)]
    assert contents(path) == [b"x", b"yz"]


def test_names_can_be_printed_and_never_touch_a_disk(packed):
    path = packed(
        {
            "../up.png": b"1",
            "/etc/passwd": b"2",
            "a\\b.png": b"3",
            "c\x1b[2J\n.png": b"4",
            "./d.png": b"5",
            "ä.png": b"6",
        }
    )
    assert [name for name, _ in listed(path)] == [
        "../up.png",
        "/etc/passwd",
        "a/b.png",
        "c\\x1b[2J\\n.png",
        "d.png",
        "ä.png",
    ]
    assert contents(path) == [b"1", b"2", b"3", b"4", b"5", b"6"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_each_accounted_for(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name, data in (("1.png", b"1"), ("1.png#2", b"2"), ("1.png", b"3"), ("1.png", b"4")):
            made.writestr(name, data)
    items = list(FilesArchive(str(path)).inputs())
    assert [i.uri.rpartition("!/")[2] for i in items] == ["1.png", "1.png#2", "1.png#3", "1.png#4"]
    assert [i.record_id for i in items] == ["1", "1.png#2", "1", "1"]
    assert contents(path) == [read_input(Input(i.uri, "")) for i in items] == [b"1", b"2", b"3", b"4"]


def test_an_archive_inside_an_archive_is_not_opened(packed):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as made:
        made.writestr("1.png", b"1")
    path = packed({"inner.zip": inner.getvalue(), "x.tar.gz": b"", "1.png": b"1"})
    assert listed(path) == [("inner.zip", "unsupported_format"), ("x.tar.gz", "unsupported_format"), ("1.png", None)]
    assert contents(path)[0] == ("list", "unsupported_format")


def patched(path, signature, offset, layout, value, which=0):
    """Overwrite one field of the header with this signature."""
    data = bytearray(path.read_bytes())
    at = [k for k in range(len(data)) if data.startswith(signature, k)][which]
    struct.pack_into(layout, data, at + offset, value)
    path.write_bytes(data)


CENTRAL = b"PK\1\2"


@pytest.mark.parametrize(
    ("offset", "layout", "value", "reason", "words"),
    [
        (8, "<H", 1, "unreadable", "is encrypted"),
        (10, "<H", 9, "unsupported_format", "deflate64"),
        (10, "<H", 77, "unsupported_format", "number 77"),
        (24, "<L", 2**31, "too_large", "BONEAGE_MAX_INPUT_MB"),
        (20, "<L", 2**31, "too_large", "BONEAGE_MAX_INPUT_MB"),
    ],
)
def test_what_the_directory_says_already_is_a_problem_of_step_list(packed, offset, layout, value, reason, words):
    path = packed({"1.png": PIXELS, "2.png": PIXELS})
    patched(path, CENTRAL, offset, layout, value)
    one, two = FilesArchive(str(path)).inputs()
    assert (one.problem[0], two.problem) == (reason, None)
    assert words in one.problem[1]
    assert contents(path) == [("list", reason), PIXELS]
    assert read_input(Input(one.uri, "1")).reason == reason


@pytest.mark.parametrize(
    ("offset", "layout", "value", "reason"),
    [
        (24, "<L", 100, "unreadable"),  # declares less than there is
        (24, "<L", 100_000, "unreadable"),  # declares more
        (16, "<L", 0, "unreadable"),  # wrong checksum
        (20, "<L", 7, "unreadable"),  # cut short
        (20, "<L", 100_000, "truncated"),  # beyond the end
        (42, "<L", 5, "unreadable"),  # no member there
        (42, "<L", 10**9, "truncated"),
        (10, "<H", 12, "unreadable"),  # another method
        (10, "<H", 14, "unreadable"),
        (10, "<H", 0, "unreadable"),
    ],
)
def test_a_lying_directory_costs_that_member_only(packed, offset, layout, value, reason):
    path = packed({"1.png": PIXELS, "2.png": PIXELS})
    patched(path, CENTRAL, offset, layout, value)
    assert contents(path) == [("read", reason), PIXELS]


@pytest.mark.parametrize("declared", [None, 1000, 2**31 - 1])
def test_a_bomb_is_never_inflated_beyond_what_it_declares(tmp_path, declared):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb.png", b"")
    # A gigabyte of zeros put in place of the empty member.
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    data = block * 1024 + squeeze.flush()
    whole = path.read_bytes()
    local = 30 + len("bomb.png")
    directory = bytearray(whole[whole.index(CENTRAL) :])
    struct.pack_into("<2L", directory, 20, len(data), 2**30 if declared is None else declared)
    struct.pack_into("<L", directory, directory.index(b"PK\5\6") + 16, local + len(data))
    path.write_bytes(whole[:local] + data + directory)
    tracemalloc.start()
    (answer,) = contents(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer == (("read", "unreadable") if declared == 1000 else ("list", "too_large"))
    assert peak < 20 * 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_nor_are_bombs_of_other_kinds(packed, method):
    path = packed({"1.png": bytes(32 * 2**20)}, method)
    patched(path, CENTRAL, 24, "<L", 1000)
    tracemalloc.start()
    assert contents(path) == [("read", "unreadable")]
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def whole_problem(path):
    (*_, item) = FilesArchive(str(path)).inputs()
    assert item.uri == str(path)
    return item.problem


def test_a_truncated_zip_file_is_one_input(packed):
    path = packed({"1.png": random.Random(0).randbytes(5000)})
    data = path.read_bytes()
    for length in (5, 100, len(data) - 30):
        path.write_bytes(data[:length])
        assert whole_problem(path)[0] == "truncated"
        assert len(list(FilesArchive(str(path)).inputs())) == 1
    path.write_bytes(data[1000:])
    assert whole_problem(path) == ("truncated", "the zip file is shorter than its directory declares; copy it again")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"\x89PNG not a zip file", "has the name of a zip file, but is none"),
        (b"PK\5\6" + bytes(18), "the zip file is empty"),
    ],
)
def test_what_is_no_zip_file_says_so(tmp_path, data, message):
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    assert whole_problem(path) == ("unreadable", message)
    assert contents(path) == [("list", "unreadable")]


def test_a_damaged_directory_keeps_the_members_before(packed):
    path = packed({"1.png": PIXELS, "2.png": PIXELS})
    patched(path, CENTRAL, 0, "<L", 0, which=1)
    assert listed(path) == [("1.png", None), ("", "unreadable")]
    assert "1 of 2 entries could be listed" in whole_problem(path)[1]


def test_something_put_before_a_zip_file_does_no_harm(packed):
    path = packed({"1.png": PIXELS})
    path.write_bytes(b"MZ self-extractor" * 100 + path.read_bytes())
    assert contents(path) == [PIXELS]


def test_zip64_and_comments(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        with made.open("1.png", "w", force_zip64=True) as file:
            file.write(PIXELS)
        made.comment = b"from PK\5 the archive"
    assert contents(path) == [PIXELS]


def test_more_members_than_fit_16_bits(packed):
    path = packed({"00000": PIXELS})
    data = path.read_bytes()
    start, end = data.index(CENTRAL), data.index(b"PK\5\6")
    entry = data[start:end]
    directory = b"".join(entry.replace(b"00000", b"%05d" % k) for k in range(70_000))
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 70_000 % 65536, 70_000 % 65536, len(directory), start, 0)
    path.write_bytes(data[:start] + directory + last)
    items = list(FilesArchive(str(path)).inputs())
    assert (len(items), items[-1].uri, items[-1].problem) == (70_000, f"{path}!/69999", None)
    assert read_input(items[-1]) == PIXELS


def test_fuzzed_zip_files_are_accounted_for(packed):
    path = packed({f"{k}.png": PIXELS for k in range(5)})
    good, rng = path.read_bytes(), random.Random(0)
    for _ in range(300):
        data = bytearray(good[: rng.randrange(1, len(good))] if rng.random() < 0.3 else good)
        for _ in range(rng.randrange(1, 6)):
            data[-rng.randrange(1, min(len(data), 500) + 1)] = rng.randrange(256)
        path.write_bytes(data)
        assert contents(path), "no input and no problem"


def test_twenty_thousand_members_list_and_read_in_any_order(packed):
    """Were the directory read anew for each, this would take hours, and the suite's limit for a test would end it."""
    path = packed({f"{k % 100}/{k}.png": k.to_bytes(4, "big") * 50 for k in range(20_000)}, zipfile.ZIP_STORED)
    items = list(FilesArchive(str(path)).inputs())
    random.Random(0).shuffle(items)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            data == int(i.record_id).to_bytes(4, "big") * 50
            for i, data in zip(items, pool.map(read_input, items), strict=True)
        )


def test_a_zip_file_on_s3_is_read_in_ranges(packed, s3_bucket, monkeypatch):
    path = packed({"1.png": PIXELS, "2.png": b"", "3.png": random.Random(0).randbytes(300_000)})
    expected = contents(path)
    storage.write_bytes(f"{s3_bucket}/in/scans.zip", path.read_bytes())
    items = list(FilesArchive(f"{s3_bucket}/in").inputs())
    assert [i.uri for i in items] == [f"{s3_bucket}/in/scans.zip!/{k}.png" for k in (1, 2, 3)]
    asked, ranged = [], storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda *range_: asked.append(range_[1:]) or ranged(*range_))
    monkeypatch.setattr(storage, "open_read", lambda _: pytest.fail("a member is one ranged request"))
    assert list(map(read_input, items)) == expected
    assert len(asked) == 3
    assert sum(length for _, length in asked) < 310_000


def test_an_absent_zip_file_is_not_found(tmp_path):
    answer = read_input(Input(f"{tmp_path}/a.zip!/1.png", "1"))
    assert (answer.step, answer.reason) == ("read", "not_found")


def test_a_member_that_is_not_there_is_not_found(packed):
    path = packed({"1.png": b"1"})
    answer = read_input(Input(f"{path}!/2.png", "2"))
    assert (answer.reason, answer.message) == ("not_found", f"{path} has no entry with this name")
