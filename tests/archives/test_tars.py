"""Tar files, plain and compressed: what is in them, and what hostile or broken ones do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.read import read_input
from boneage_ray.errors import InputProblem

PIXELS = bytes(range(256)) * 40
ENDINGS = {"tar": "", "tar.gz": "gz", "tgz": "gz", "tar.bz2": "bz2", "tbz2": "bz2", "tar.xz": "xz", "txz": "xz"}


@pytest.fixture
def packed(tmp_path):
    """packed({name: bytes}, ending) is the path of a tar file."""

    def write(members, ending="tar", **options):
        path = tmp_path / f"scans.{ending}"
        with tarfile.open(path, f"w:{ENDINGS[ending]}", **options) as made:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
        return path

    return write


def listed(path):
    """(name in the archive or the archive's own, reason) of every input."""
    items = FilesArchive(str(path)).inputs()
    return [(i.uri.rpartition("!/")[2] if "!/" in i.uri else "", i.problem and i.problem[0]) for i in items]


def contents(path):
    """What reading each input gives: bytes, or (step, reason)."""
    read = map(read_input, FilesArchive(str(path)).inputs())
    return [(data.step, data.reason) if isinstance(data, InputProblem) else data for data in read]


LONG = "/".join(["folder"] * 40) + "/" + "n" * 90 + ".png"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_inputs_in_the_order_of_the_tar_file(packed, ending, layout):
    path = packed({"./b/2.png": PIXELS, "1.dcm": b"", LONG: b"x", "ä.png": b"y"}, ending, format=layout)
    items = list(FilesArchive(str(path)).inputs())
    assert [i.uri.removeprefix(f"{path}!/") for i in items] == ["b/2.png", "1.dcm", LONG, "ä.png"]
    assert [(i.record_id, i.size_bytes) for i in items[:2]] == [("2", len(PIXELS)), ("1", 0)]
    assert contents(path) == [PIXELS, b"", b"x", b"y"]
    assert [read_input(Input(item.uri, "x")) for item in items] == [PIXELS, b"", b"x", b"y"], "the URI alone is enough"


def test_content_decides_how_a_tar_file_is_compressed(packed, tmp_path):
    path = packed({"1.png": PIXELS})
    path.rename(tmp_path / "plain.tar.gz")
    assert contents(tmp_path / "plain.tar.gz") == [PIXELS]
    (tmp_path / "two.tar.bz2").write_bytes(
        b"".join(bz2.compress(half) for half in halves((tmp_path / "plain.tar.gz").read_bytes()))
    )
    assert contents(tmp_path / "two.tar.bz2") == [PIXELS], "several streams, as parallel packers write"


def halves(data):
    return data[: len(data) // 2], data[len(data) // 2 :]


def test_only_files_count(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as made:
        for kind, name in (
            (tarfile.DIRTYPE, "a"),
            (b"V", "volume"),
            (tarfile.SYMTYPE, "s.png"),
            (tarfile.SYMTYPE, "._s.png"),
            (tarfile.LNKTYPE, "l.png"),
            (tarfile.FIFOTYPE, "f"),
            (tarfile.CHRTYPE, "c"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            made.addfile(info)
        made.addfile(tarfile.TarInfo("._1.png"))
        made.addfile(tarfile.TarInfo("1.png"))
        made.addfile(tarfile.TarInfo("1.png"))
        made.addfile(tarfile.TarInfo("../../2\n.png"))
        made.addfile(tarfile.TarInfo("inner.tar"))
    assert listed(path) == [
        ("s.png", "unsupported_format"),
        ("l.png", "not_found"),
        ("f", "unsupported_format"),
        ("c", "unsupported_format"),
        ("1.png", None),
        ("1.png#2", None),
        ("../../2\\n.png", None),
        ("inner.tar", "unsupported_format"),
    ]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_hard_links_are_read_where_they_lead_to(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    with tarfile.open(path, f"w:{ENDINGS[ending]}") as made:
        for name, target in (("./1.png", None), ("2.png", "./1.png"), ("b.tar", "1.png"), ("3.png", "2.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.LNKTYPE, target) if target else (tarfile.REGTYPE, "")
            info.size = 0 if target else len(PIXELS)
            made.addfile(info, None if target else io.BytesIO(PIXELS))
    assert listed(path) == [("1.png", None), ("2.png", None), ("b.tar", "unsupported_format"), ("3.png", None)]
    assert contents(path) == [PIXELS, PIXELS, ("list", "unsupported_format"), PIXELS]
    items = list(FilesArchive(str(path)).inputs())
    assert [(i.record_id, i.size_bytes) for i in items] == [(k, len(PIXELS)) for k in ("1", "2", "b", "3")]
    assert read_input(Input(items[3].uri, "3")) == PIXELS, "the URI alone is enough"


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz"])
def test_many_threads_read_in_any_order(packed, ending):
    path = packed({f"{k}.png": k.to_bytes(4, "big") * 100 for k in range(2000)}, ending)
    items = list(FilesArchive(str(path)).inputs())
    random.Random(0).shuffle(items)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            data == int(i.record_id).to_bytes(4, "big") * 100
            for i, data in zip(items, pool.map(read_input, items), strict=True)
        )


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_truncated_tar_file_keeps_the_members_before(packed, ending):
    noise = random.Random(0).randbytes(1_000_000)  # more than a block of bzip2, which is unpacked whole or not at all
    path = packed({"1.png": noise, "2.png": noise[::-1]}, ending)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 19 // 20])
    assert listed(path) == [("1.png", None), ("2.png", None), ("", "truncated")]
    assert contents(path) == [noise, ("read", "truncated"), ("list", "truncated")]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_what_follows_the_end_mark_is_told(packed, ending):
    path = packed({"1.png": PIXELS}, ending)
    one = path.read_bytes()
    path.write_bytes(one + packed({"2.png": PIXELS}, ending).read_bytes())
    assert listed(path) == [("1.png", None), ("", "unreadable")]
    *_, item = FilesArchive(str(path)).inputs()
    assert item.problem[1].startswith("more data follow the end mark of the tar file, after 1 entries")


def test_a_tar_file_without_its_end_may_have_lost_members(packed):
    path = packed({"1.png": PIXELS, "2.png": PIXELS})
    path.write_bytes(path.read_bytes()[: 512 + len(PIXELS)])
    assert listed(path) == [("1.png", None), ("", "truncated")]
    (_, end) = FilesArchive(str(path)).inputs()
    assert end.problem[1] == "the tar file ends early after 1 entries; copy it again"


@pytest.mark.parametrize(
    ("name", "data", "reason", "words"),
    [
        ("a.tar", b"", "unreadable", "empty (0 bytes)"),
        ("a.tar", bytes(10240), "unreadable", "the tar file is empty"),
        ("a.tar", b"\x89PNG" * 1000, "unreadable", "has the name of a tar file, but is none, or is damaged"),
        ("a.tar", b"\x89PNG", "truncated", "ends early after 0 entries"),
        ("a.tgz", b"\x1f\x8b" + b"\xff" * 1000, "unreadable", "none, or is damaged"),
        ("a.tgz", gzip.compress(bytes(10240))[:20], "truncated", "ends early"),
        ("a.tar.xz", lzma.compress(b"text" * 1000), "unreadable", "none, or is damaged"),
    ],
)
def test_what_is_no_tar_file_says_so(tmp_path, name, data, reason, words):
    path = tmp_path / name
    path.write_bytes(data)
    (item,) = FilesArchive(str(path)).inputs()
    assert (item.uri, item.problem[0]) == (str(path), reason)
    assert words in item.problem[1]


def header(name, size, kind=b"0"):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (header("x", -512), "unreadable"),
        (header("x", 2**30), "truncated"),
        (header("x", 2**40, b"x"), "unreadable"),  # an extended header of a terabyte
        (header("x", 2**40, b"L"), "unreadable"),
        (header("x", 512, b"x") * 1000, "unreadable"),
        (b"\xff" * 2048, "unreadable"),
    ],
)
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_absurd_headers_end_the_listing_with_a_reason(tmp_path, rest, reason, ending):
    path = tmp_path / f"a.{ending}"
    data = header("1.png", 3) + b"abc".ljust(512, b"\0") + rest
    path.write_bytes(gzip.compress(data) if ending == "tar.gz" else data)
    assert contents(path)[0] == b"abc"
    assert listed(path)[-1] == ("", reason)


def test_a_bomb_is_too_large_and_unpacking_ends_at_the_limit(packed, monkeypatch):
    monkeypatch.setenv("BONEAGE_MAX_INPUT_MB", "1")
    monkeypatch.setattr("boneage_ray.archives.entry.GIBIBYTE", 2**20)
    monkeypatch.setenv("BONEAGE_MAX_UNPACKED_GB", "5")
    path = packed({"1.png": bytes(3 * 2**20), "2.png": b"2", "3.png": bytes(3 * 2**20), "4.png": b"4"}, "tar.gz")
    assert listed(path) == [("1.png", "too_large"), ("2.png", None), ("3.png", "too_large"), ("", "too_large")]
    assert contents(path)[1] == b"2"
    items = list(FilesArchive(str(path)).inputs())
    assert read_input(Input(items[0].uri, "1")).reason == "too_large"


def test_fuzzed_tar_files_are_accounted_for(packed):
    rng = random.Random(0)
    for ending in ("tar", "tar.gz", "tar.bz2", "tar.xz"):
        path = packed({f"{k}.png": PIXELS[: 700 * k] for k in range(5)}, ending)
        good = path.read_bytes()
        for number in range(80):
            data = bytearray(good[: rng.randrange(1, len(good))] if rng.random() < 0.3 else good)
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            broken = path.with_name(f"{number}.{ending}")  # a process keeps what it has unpacked
            broken.write_bytes(data)
            assert contents(broken), "no input and no problem"
            broken.unlink()


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_tar_file_on_s3_reads_the_same(packed, ending, s3_bucket):
    path = packed({"1.png": PIXELS, "2.png": b""}, ending)
    storage.write_bytes(f"{s3_bucket}/in/{path.name}", path.read_bytes())
    assert [uri for uri, _ in listed(f"{s3_bucket}/in")] == ["1.png", "2.png"]
    assert contents(f"{s3_bucket}/in") == [PIXELS, b""]
