"""What an update finds: marks of inputs, the comparison of two listings, and the parts that follow from it."""

from __future__ import annotations

import errno
import json
import os
import random
import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from boneage_ray import storage
from boneage_ray.archives import dicomdir
from boneage_ray.archives.archive import Archive, Input, note
from boneage_ray.archives.changes import Comparison, Held, Redo, mark_of
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.archives.read import read_input
from boneage_ray.archives.updates import Unchanged, UpdateTodo, differs, work_of
from boneage_ray.errors import MismatchError, StorageError
from boneage_ray.runtime import parts

A = Input("s3://site/a.png", "a", sex="F", size_bytes=7, version='"e1"')
NAMES = [
    *("a b.png", "a+b.png", "a%20b.png", "a#b.png", "a\nb.png", "A B.png", "a?b.png", " a b.png"),
    *(unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")),
]


def changes(groups, inputs, again=True):
    """What a comparison with these parts finds."""
    held = Held([b"".join(map(mark_of, group)) for group in groups])
    return Comparison(held, lambda part: [item.uri for item in groups[part]], again).changes(inputs)


def items(count, version="1"):
    return [Input(f"/films/{k:04d}.png", f"{k:04d}", size_bytes=k, version=version) for k in range(count)]


def plan(old, new):
    """(URIs of new inputs, {part: (changed rows, vanished rows)})."""
    found = list(changes(old, new))
    redone = [change for change in found if isinstance(change, Redo)]
    assert len({change.part for change in redone}) == len(redone)
    new_ones = [change.uri for change in found if isinstance(change, Input)]
    return new_ones, {c.part: ([row for row, _ in c.changed], list(c.vanished)) for c in redone}


@pytest.mark.parametrize(
    "other",
    [
        replace(A, size_bytes=8),
        replace(A, version='"e2"'),
        replace(A, sex="M"),
        replace(A, sex=None),
        replace(A, pixel_spacing_mm=0.1),
        replace(A, chronological_age_months=100.0),
        replace(A, problem=("too_large", "8 GB")),
        replace(A, mask="s3://site/masks/a.png"),
    ],
)
def test_whatever_decides_a_row_changes_the_state_but_not_the_key(other):
    assert mark_of(other)[:8] == mark_of(A)[:8]
    assert mark_of(other)[8:] != mark_of(A)[8:]


def test_a_patient_is_in_no_mark_and_a_zip_entry_may_move():
    assert mark_of(replace(A, patient="Doe")) == mark_of(A)
    first, moved, other = (
        replace(A, position=f"zip {where}") for where in ("0 5 9 8 77", "640 5 9 8 77", "0 5 9 8 78")
    )
    assert mark_of(first) == mark_of(moved) != mark_of(other)
    assert mark_of(replace(A, position="plain 512 9")) != mark_of(replace(A, position="plain 1024 9"))


def test_names_that_look_alike_are_inputs_of_their_own(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(b"x")
    found = list(FilesArchive(str(tmp_path)).inputs())
    assert len({mark_of(item)[:8] for item in found}) == len(NAMES)
    assert list(changes([found], FilesArchive(str(tmp_path)).inputs())) == []


def test_an_unchanged_archive_is_no_work():
    old = items(1300)
    assert plan([old[:8], old[8:700], old[700:]], old) == ([], {})
    assert plan([], []) == ([], {})


def test_new_changed_and_vanished_inputs_are_told_apart():
    old = items(30)
    now = [Input("/films/0000-early.png", "0000-early"), *old[:3], *old[4:]]
    now[now.index(old[12])] = replace(old[12], version="2")
    now[now.index(old[25])] = replace(old[25], size_bytes=99)
    now.remove(old[26])
    assert plan([old[:10], old[10:20], old[20:]], now) == (
        ["/films/0000-early.png"],
        {0: ([], [3]), 1: ([2], []), 2: ([5], [6])},
    )
    assert plan([old[:10], old[10:]], []) == ([], {0: ([], list(range(10))), 1: ([], list(range(20)))})


def test_a_part_is_renewed_as_soon_as_its_inputs_are_listed():
    old, taken = items(6000), []

    def listing():
        for item in items(6000, "2"):
            taken.append(item)
            yield item

    first = next(iter(changes([old[:100], old[100:]], listing())))
    assert (first.part, [row for row, _ in first.changed]) == (0, list(range(100)))
    assert len(taken) < 600


def test_a_listing_that_fails_half_way_removes_nothing():
    old = items(2000)

    def broken():
        yield from old[:1500]
        raise StorageError("unreadable", "503 SlowDown")

    came = []
    with pytest.raises(StorageError):
        came.extend(iter(changes([old[:100], old[100:]], broken())))
    assert came == []


def test_a_uri_that_is_listed_twice_has_two_rows():
    twice = [A, replace(A, problem=("duplicate_id", "twice"))]
    assert plan([twice], twice) == ([], {})
    assert plan([twice], [A]) == ([], {0: ([], [1])})
    assert plan([[A]], twice) == ([A.uri], {})


def test_what_remains_and_what_is_done_is_always_the_new_archive():
    draw = random.Random(5)
    for _ in range(60):
        old = draw.sample(items(60), draw.randrange(60))
        now = [item if draw.random() < 0.7 else replace(item, version="2") for item in draw.sample(items(60), 40)]
        cut = sorted(draw.sample(range(len(old) + 1), min(3, len(old))))
        groups = [old[a:b] for a, b in zip([0, *cut], [*cut, len(old)], strict=True)]
        rows = [list(group) for group in groups]
        added = []
        for change in changes(groups, now):
            if isinstance(change, Input):
                added.append(change)
                continue
            for row, item in change.changed:
                rows[change.part][row] = item
            rows[change.part] = [r for k, r in enumerate(rows[change.part]) if k not in change.vanished]
        result = [*(item for group in rows for item in group), *added]
        assert sorted(map(mark_of, result)) == sorted(map(mark_of, now))


def test_what_cannot_be_examined_keeps_its_rows():
    names = ["a.png", "ward/1.png", "ward/b/2.png", "wards.png", "films.zip!/3.png", "films.zip!/c/4.png", "gone.png"]
    old = [Input(f"/films/{name}", name, version="1") for name in names]
    ward = Input("/films/ward", "ward", problem=("permission_denied", "no"), closed=True)
    packed = Input("/films/films.zip", "films", problem=("truncated", "no"), closed=True)
    refused = replace(old[0], version=None, size_bytes=0, closed=True)
    groups = [old[:2], old[2:]]
    compared = Comparison(
        Held([b"".join(map(mark_of, group)) for group in groups]), lambda k: [i.uri for i in groups[k]]
    )
    *new, redo = compared.changes([ward, packed, refused, old[3]])
    assert new == [ward, packed]
    assert (redo.part, redo.changed, redo.vanished) == (1, (), (4,))
    assert compared.closed.line() == {
        "kept": 5,
        "closed_inputs": [f"/films/{n}" for n in ("a.png", "films.zip", "ward")],
    }
    # Open again, their rows are as before, and those of the folder and the zip file are gone.
    again = Comparison(Held([b"".join(map(mark_of, [*old[:6], ward, packed]))]), lambda _: [])
    (redo,) = again.changes(old[:6])
    assert (redo.changed, redo.vanished, again.closed.line()) == ((), (6, 7), {})


def test_a_part_with_kept_rows_is_renewed_for_its_changed_ones():
    old = [Input(f"/films/{name}", name, version="1") for name in ("ward/1.png", "x.png")]
    ward = Input("/films/ward", "ward", problem=("permission_denied", "no"), closed=True)
    _, redo = changes([old], [ward, replace(old[1], version="2")])
    assert ([row for row, _ in redo.changed], redo.vanished) == ([1], ())


def test_what_could_not_be_read_is_tried_again_by_an_update_only():
    assert mark_of(A, again=True)[:-1] == mark_of(A)[:-1]
    unread = Held([mark_of(A, again=True) + mark_of(items(1)[0])])
    (redo,) = Comparison(unread, lambda _: []).changes([A, *items(1)])
    assert (redo.changed, redo.again) == (((0, A),), 1)
    assert list(Comparison(Held([mark_of(A, again=True)]), lambda _: [], again=False).changes([A])) == []
    (redo,) = Comparison(Held([mark_of(A, again=True)]), lambda _: []).changes([replace(A, version='"e2"')])
    assert (len(redo.changed), redo.again) == (1, 0)


class Fixed(Archive):
    def __init__(self, inputs):
        self.given = inputs

    def inputs(self):
        yield from self.given


GHOST = note("ghost", "no_image", "metadata without a file", table_rows=1)


def committed(out, inputs):
    """Commits the parts of a first run; target -> mark."""
    done = {}
    for part in ArchiveParts(Fixed(inputs), "results", files_only=True)():
        if part.target:
            found = work_of(part).inputs
            table = pa.table({"input_uri": [item.uri for item in found]})
            line = parts.commit(out, part, table, {}, marks=b"".join(map(mark_of, found)))
            done[part.target] = line["mark"]
    return done


@pytest.fixture(params=["local", "s3"])
def out(request, tmp_path):
    """An empty OUT on either kind of storage."""
    return str(tmp_path) if request.param == "local" else f"{request.getfixturevalue('s3_bucket')}/out"


def test_an_update_makes_new_parts_and_renews_those_that_changed(out):
    old = items(100)
    done = committed(out, [*old, GHOST])
    assert sorted(done) == [f"results/part-{k:05d}.parquet" for k in range(9)]
    now = [*items(1, "2"), *old[1:20], *old[21:], *(Input(f"/films/new{k}.png", f"new{k}") for k in range(40)), GHOST]
    *work, end = UpdateTodo(Fixed(now), out, "results", "u1", done, "me")()
    orders = {row["target"]: work_of(parts.Part(**row)) for row in work}
    assert {row["target"]: row["size"] for row in work} == {
        "results/part-00000.parquet": 8,
        "results/part-00002.parquet": 7,
        "results/part-00009.parquet": 32,
        "results/part-00010.parquet": 8,
    }
    renewed, shorter, added = (orders[f"results/part-{k:05d}.parquet"] for k in (0, 2, 9))
    assert (renewed.inputs, renewed.changed, renewed.vanished) == (items(1, "2"), [0], [])
    assert (shorter.inputs, shorter.changed, shorter.vanished) == ([], [], [4])
    assert (renewed.was, added.was) == (done["results/part-00000.parquet"], "")
    assert {order.update for order in orders.values()} == {"u1"}
    assert {row["owner"] for row in work} == {"me"}
    assert (end["line"]["listed"], end["line"]["inputs"], end["line"]["work"]) == (11, 139, 4)
    assert end["line"]["said"]["table_rows"] == {"unmatched": 1}


def test_a_command_that_is_no_update_says_what_changed(out):
    old = items(20)
    done = committed(out, old)
    (end,) = Unchanged(Fixed(old), out, "results", done)()
    assert (end["line"]["listed"], end["line"]["inputs"]) == (3, 20)
    now = [Input("/films/0000-early.png", "e"), *old[:-1]]
    now[5] = replace(now[5], version="2")
    with pytest.raises(MismatchError) as caught:
        list(Unchanged(Fixed(now), out, "results", done)())
    said = str(caught.value)
    assert "1 without a row, /films/0000-early.png; 1 changed, /films/0004.png; 1 gone, /films/0019.png" in said
    assert "give --update to do only these, give another --out, or --overwrite" in said
    assert said == str(differs(Fixed(now), out, "results"))


def test_the_version_of_a_file_is_what_its_storage_tells(tmp_path, s3_bucket):
    for folder in (str(tmp_path), f"{s3_bucket}/films", f"memory://{tmp_path.name}"):
        storage.write_bytes(f"{folder}/a.png", b"one")
        (before,) = FilesArchive(folder).inputs()
        (again,) = FilesArchive(folder).inputs()
        storage.write_bytes(f"{folder}/a.png", b"two")
        (after,) = FilesArchive(folder).inputs()
        assert before.version
        assert before.version == again.version != after.version
        assert before == after  # compared without it
        assert json.loads(json.dumps(before.version)) == before.version


@pytest.fixture
def ward(tmp_path):
    """A folder of films: two in a ward, one beside it."""
    for name in ("films/ward/1.png", "films/ward/2.png", "films/x.png"):
        storage.write_bytes(f"{tmp_path}/{name}", b"12")
    return tmp_path / "films"


def work_on(films, out, done):
    """(inputs of new parts, renewed parts, what is said of kept rows) of an update."""
    *work, end = UpdateTodo(FilesArchive(str(films)), out, "results", "u1", done)()
    orders = [work_of(parts.Part(**row)) for row in work]
    new = [item.uri.removeprefix(f"{films}/") for order in orders if not order.was for item in order.inputs]
    assert end["line"]["inputs"] == sum(row["size"] for row in work if row["target"] not in done) + 3
    return new, [(order.changed, order.vanished) for order in orders if order.was], end["line"]["said"]["closed"]


def test_a_folder_that_cannot_be_listed_keeps_the_rows_of_its_films(ward, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    done = committed(out, list(FilesArchive(str(ward)).inputs()))
    assert work_on(ward, out, done) == ([], [], {})
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("/ward"):
            raise PermissionError(errno.EACCES, "closed", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        assert work_on(ward, out, done) == (["ward"], [], {"kept": 2, "closed_inputs": [f"{ward}/ward"]})
    assert work_on(ward, out, done) == ([], [], {})


def test_a_share_that_is_not_mounted_behind_its_link_keeps_the_rows_of_its_films(ward, tmp_path):
    out, share = str(tmp_path / "out"), tmp_path / "share"
    (ward / "ward").rename(share)
    (ward / "ward").symlink_to(share)
    done = committed(out, list(FilesArchive(str(ward)).inputs()))
    share.rename(tmp_path / "gone")
    assert work_on(ward, out, done) == (["ward"], [], {"kept": 2, "closed_inputs": [f"{ward}/ward"]})


def test_a_film_whose_state_is_refused_keeps_its_row(ward, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    done = committed(out, list(FilesArchive(str(ward)).inputs()))
    state = Path.stat

    def refused(self, **options):
        if self.name == "x.png":
            raise PermissionError(errno.EACCES, "refused", str(self))
        return state(self, **options)

    monkeypatch.setattr(Path, "stat", refused)
    assert work_on(ward, out, done) == ([], [], {"kept": 1, "closed_inputs": [f"{ward}/x.png"]})


def test_a_zip_file_that_breaks_off_keeps_the_rows_of_its_entries(tmp_path):
    films, out = tmp_path / "films", str(tmp_path / "out")
    films.mkdir()
    with zipfile.ZipFile(films / "f.zip", "w") as packed:
        for name in ("1.png", "a/2.png", "a/3.png"):
            packed.writestr(name, b"12345")
    done = committed(out, list(FilesArchive(str(films)).inputs()))
    whole = (films / "f.zip").read_bytes()
    (films / "f.zip").write_bytes(whole[:-30])
    new, renewed, said = work_on(films, out, done)
    assert (new, renewed, said) == (["f.zip"], [], {"kept": 3, "closed_inputs": [f"{films}/f.zip"]})


def test_a_dicomdir_whose_folder_cannot_be_listed_keeps_the_rows_of_its_files(tmp_path, monkeypatch):
    info = storage.FileInfo(f"{tmp_path}/DICOM", 0, ("permission_denied", "closed"), closed=True)
    monkeypatch.setattr(dicomdir, "_references", lambda _: [("DICOM/A/IM1", None), ("IM2", None)])
    monkeypatch.setattr(storage, "list_files", lambda _: iter([info]))
    found = list(dicomdir.dicomdir_files(f"{tmp_path}/DICOMDIR"))
    assert [(f.path, f.problem[0], f.closed) for f in found] == [
        ("DICOM/A/IM1", "permission_denied", True),
        ("IM2", "not_found", False),
    ]


def test_a_folder_of_masks_that_cannot_be_listed_ends_the_listing(tmp_path, monkeypatch):
    storage.write_bytes(f"{tmp_path}/masks/ward/1.png", b"1")
    storage.write_bytes(f"{tmp_path}/1.png", b"1")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("/ward"):
            raise PermissionError(errno.EACCES, "closed", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(StorageError, match=r"masks/ward: this folder cannot be listed.* masks of any image"):
        list(FilesArchive(str(tmp_path), masks=True).inputs())


ODD = [
    "a b.png",
    "50%.png",
    "50%25.png",
    "a+b.png",
    "a#1.png",
    "a?x=1&y.png",
    "a\nb.png",
    " c.png",
    "ward/a;b=c.png",
    "é.png",
]


def test_odd_keys_on_s3_are_listed_read_and_known_again(s3_bucket):
    films, out = f"{s3_bucket}/films", f"{s3_bucket}/out"
    for name in ODD:
        storage.write_bytes(f"{films}/{name}", name.encode())
    found = list(FilesArchive(films).inputs())
    assert sorted(item.uri for item in found) == sorted(f"{films}/{name}" for name in ODD)
    assert [read_input(item) for item in found] == [item.uri.removeprefix(f"{films}/").encode() for item in found]
    done = committed(out, found)
    assert [row for row in UpdateTodo(FilesArchive(films), out, "results", "u1", done)() if "line" not in row] == []
    storage.write_bytes(f"{films}/a+b.png", b"other")
    storage.delete_tree(f"{films}/50%25.png")
    storage.write_bytes(f"{films}/50%2525.png", b"new")
    *work, end = UpdateTodo(FilesArchive(films), out, "results", "u1", done)()
    orders = [work_of(parts.Part(**row)) for row in work]
    assert sorted(item.uri for order in orders for item in order.inputs) == [f"{films}/50%2525.png", f"{films}/a+b.png"]
    assert sum(len(order.vanished) for order in orders) == 1
    assert end["line"]["inputs"] == len(ODD)
