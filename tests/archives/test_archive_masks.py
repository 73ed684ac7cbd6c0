"""Masks beside images: which belongs to which, and what becomes of the others."""

from __future__ import annotations

import pytest

from boneage_ray.archives.archive import Input
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.masks import mask_data, mask_name
from boneage_ray.archives.open import open_archive
from boneage_ray.archives.rsna import RsnaArchive
from boneage_ray.errors import InputProblem
from boneage_ray.parts import ArchiveParts, inputs_of


@pytest.fixture
def folder(tmp_path):
    """folder(names) writes files of these names, each holding its name, and returns their folder."""

    def write(*names):
        for name in names:
            path = tmp_path / "films" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        return tmp_path / "films"

    return write


def pairs(archive, root):
    """(file, its mask) of the inputs, (id, reason) of the rest."""
    items = list(archive.inputs())
    short = {item.uri: item.uri.removeprefix(f"{root}/") for item in items}
    met = [(short[i.uri], i.mask and i.mask.removeprefix(f"{root}/masks/")) for i in items if i.uri]
    return met, [(i.record_id, i.problem[0]) for i in items if not i.uri]


def test_masks_meet_their_images_and_the_rest_is_listed(folder):
    root = folder("1.png", "2.png", "x9.dcm", "masks/1.png", "masks/x9.png", "masks/7.png")
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert met == [("1.png", "1.png"), ("2.png", None), ("x9.dcm", "x9.png")]
    assert rest == [("7", "no_image")]


def test_the_path_goes_before_the_name_and_a_mask_serves_one_image(folder):
    root = folder("1.png", "a/1.png", "b/1.dcm", "b/1.png", "c/1.png")
    folder("masks/1.png", "masks/b/1.png", "masks/b/1.dcm.png")
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert met == [
        ("1.png", "1.png"),
        ("a/1.png", None),
        ("b/1.dcm", "b/1.dcm.png"),
        ("b/1.png", "b/1.png"),
        ("c/1.png", None),
    ]
    assert rest == []


def test_two_masks_of_one_name_are_told(folder):
    root = folder("1.png", "masks/1.bmp", "masks/1.png")
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert met == [("1.png", "1.bmp")]
    assert rest == [("1", "duplicate_id")]


def test_without_masks_asked_for_every_file_is_an_input(folder):
    root = folder("1.png", "masks/1.png")
    assert pairs(FilesArchive(str(root)), root) == ([("1.png", None), ("masks/1.png", None)], [])


def test_masks_of_a_labelled_archive_are_no_images_of_it(folder):
    root = folder("x1.png", "x2.png", "masks/x1.png", "masks/x3.png")
    (root / "labels.csv").write_text("id,boneage,male\nx1,12,True\nx2,24,False\n")
    archive = open_archive(str(root))
    assert isinstance(archive, RsnaArchive)
    assert pairs(archive, root) == ([("x1.png", "x1.png"), ("x2.png", None)], [("x3", "no_image")])


def test_an_image_with_another_problem_keeps_its_mask(folder):
    root = folder("x1.png", "x2.png", "masks/x2.png")
    (root / "labels.csv").write_text("id,boneage,male\nx1,12,True\n")
    assert pairs(open_archive(str(root)), root) == ([("x1.png", None), ("x2.png", "x2.png")], [])


def test_masks_travel_in_the_parts_of_a_run(folder):
    root = folder("1.png", "2.png", "masks/1.png")
    (part,) = ArchiveParts(FilesArchive(str(root), masks=True), "cases")()
    assert [item.mask for item in inputs_of(part)] == [f"{root}/masks/1.png", None]


def test_bytes_of_a_mask_or_why_there_are_none(folder):
    root = folder("masks/1.png")
    assert mask_data(Input("a.png", "a", mask=f"{root}/masks/1.png")) == b"masks/1.png"
    assert mask_data(Input("a.png", "a")) is None
    with pytest.raises(InputProblem, match="no_mask: the mask cannot be read: not_found"):
        mask_data(Input("a.png", "a", mask=f"{root}/masks/2.png"))


def test_what_score_writes_is_found_again(folder):
    images = ("1.png", "b/1.dcm", "b/1.png", "c/d.JPG")
    root = folder(*images, *map(mask_name, images))
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert [mask_name(image).removeprefix("masks/") for image, _ in met] == [mask for _, mask in met]
    assert rest == []
