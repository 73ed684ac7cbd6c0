"""What an update finds: marks of inputs, the comparison of two listings, and the parts that follow from it."""

from __future__ import annotations

import json
import random
import unicodedata
from dataclasses import replace

import pyarrow as pa
import pytest

from boneage_ray import storage
from boneage_ray.archives.archive import Archive, Input, note
from boneage_ray.archives.changes import Held, Redo, changes, mark_of
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.archives.updates import Unchanged, UpdateTodo, differs, work_of
from boneage_ray.errors import MismatchError, StorageError
from boneage_ray.runtime import parts

A = Input("s3://site/a.png", "a", sex="F", size_bytes=7, version='"e1"')
NAMES = [
    *("a b.png", "a+b.png", "a%20b.png", "a#b.png", "a\nb.png", "A B.png", "a?b.png", " a b.png"),
    *(unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")),
]


def held(*groups):
    return Held([b"".join(map(mark_of, group)) for group in groups])


def items(count, version="1"):
    return [Input(f"/films/{k:04d}.png", f"{k:04d}", size_bytes=k, version=version) for k in range(count)]


def plan(old, new):
    """(URIs of new inputs, {part: (changed rows, vanished rows)})."""
    found = list(changes(held(*old), new))
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
    marks = [mark_of(item) for item in FilesArchive(str(tmp_path)).inputs()]
    assert len({mark[:8] for mark in marks}) == len(NAMES)
    assert list(changes(Held([b"".join(marks)]), FilesArchive(str(tmp_path)).inputs())) == []


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

    first = next(iter(changes(held(old[:100], old[100:]), listing())))
    assert (first.part, [row for row, _ in first.changed]) == (0, list(range(100)))
    assert len(taken) < 600


def test_a_listing_that_fails_half_way_removes_nothing():
    old = items(2000)

    def broken():
        yield from old[:1500]
        raise StorageError("unreadable", "503 SlowDown")

    came = []
    with pytest.raises(StorageError):
        came.extend(iter(changes(held(old[:100], old[100:]), broken())))
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
        for change in changes(held(*groups), now):
            if isinstance(change, Input):
                added.append(change)
                continue
            for row, item in change.changed:
                rows[change.part][row] = item
            rows[change.part] = [r for k, r in enumerate(rows[change.part]) if k not in change.vanished]
        result = [*(item for group in rows for item in group), *added]
        assert sorted(map(mark_of, result)) == sorted(map(mark_of, now))


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
