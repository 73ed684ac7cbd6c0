"""Masks of an archive: which image each belongs to, and how the others are reported."""

from __future__ import annotations

import pytest

from boneage_ray.archives.archive import Input
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.in_parts import ArchiveParts, inputs_of
from boneage_ray.archives.listing import files_below
from boneage_ray.archives.masks import Masks, mask_data, mask_name
from boneage_ray.archives.open import open_archive
from boneage_ray.archives.rsna import RsnaArchive
from boneage_ray.errors import InputProblem


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


def test_the_path_takes_precedence_over_the_name_and_a_mask_serves_one_image(folder):
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


def test_two_masks_of_one_name_are_reported(folder):
    root = folder("1.png", "masks/1.bmp", "masks/1.png")
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert met == [("1.png", "1.bmp")]
    assert rest == [("1", "duplicate_id")]


def test_an_exact_path_wins_over_a_name_that_was_listed_before(folder):
    root = folder("1/7.png", "7.png", "masks/7.png")
    assert pairs(FilesArchive(str(root), masks=True), root) == ([("1/7.png", None), ("7.png", "7.png")], [])


def test_a_mask_that_several_images_fit_belongs_to_none(folder):
    root = folder("a/7.png", "b/7.png", "c/8.dcm", "c/8.tif", "d/9.png", "masks/7.png", "masks/c/8.png", "masks/9.png")
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert [mask for _, mask in met] == [None, None, None, None, "9.png"]
    assert rest == [("7", "duplicate_id"), ("c/8", "duplicate_id")]
    said = [item.problem[1] for item in FilesArchive(str(root), masks=True).inputs() if not item.uri]
    assert all("2 images match this name" in text for text in said)


def test_repeated_ids_of_a_labelled_archive_are_reported(folder):
    root = folder("a/x1.png", "b/x1.png", "masks/x1.png")
    (root / "labels.csv").write_text("id,boneage,male\nx1,12,True\n")
    met, rest = pairs(open_archive(str(root)), root)
    assert met == [("a/x1.png", None), ("b/x1.png", None)]
    assert rest == [("x1", "duplicate_id")]


def test_a_file_without_an_image_extension_takes_no_mask_from_an_image(folder):
    root = folder("a/7.json", "a/7.png", "b/8", "b/8.txt", "masks/7.png", "masks/b/8.png")
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert met == [("a/7.json", None), ("a/7.png", "7.png"), ("b/8", "b/8.png"), ("b/8.txt", None)]
    assert rest == []


def test_images_are_listed_twice_only_where_there_are_masks(folder):
    root = folder("1.png")
    listed = []
    images = (listed.append(found) or found for found in files_below(str(root)))
    assert Masks.below(str(root), images).uris == {}
    assert listed == []


def test_masks_are_not_scored_as_radiographs(folder):
    root = folder("1.png", "masks/1.png", "masks/2.png", "masked/1.png")
    archive = FilesArchive(str(root))
    assert [mask for _, mask in pairs(archive, root)[0]] == [None] * 4
    problems = {item.uri.removeprefix(f"{root}/"): item.problem for item in archive.inputs()}
    assert {name for name, problem in problems.items() if problem} == {"masks/1.png", "masks/2.png"}
    assert problems["masks/2.png"][0] == "unsupported_format"
    assert "a hand mask in masks/, not a radiograph" in problems["masks/2.png"][1]


def test_a_mask_takes_no_metadata_from_an_image(folder):
    root = folder("masks/1.png", "z/1.png")
    (root.parent / "sexes.csv").write_text("stem,sex\n1,F\n")
    assert [i.sex for i in FilesArchive(str(root), str(root.parent / "sexes.csv")).inputs()] == [None, "F"]


@pytest.mark.parametrize("place", ["films", "films/masks"])
def test_any_other_folder_called_masks_holds_images(folder, tmp_path, place):
    folder("1.png", "a2.txt", "masks/a2.png") if place == "films" else folder("1.png", "masks/1.png")
    assert all(item.problem is None for item in FilesArchive(str(tmp_path / place)).inputs())


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
    images = ("1.png", "b/1.dcm", "b/1.png", "c/7", "c/7.dcm", "c/7.dcm.png", "c/7.mask", "c/7.png", "c/d.JPG")
    root = folder(*images, *map(mask_name, images))
    met, rest = pairs(FilesArchive(str(root), masks=True), root)
    assert [mask_name(image).removeprefix("masks/") for image, _ in met] == [mask for _, mask in met]
    assert len({mask for _, mask in met}) == len(images)
    assert rest == []
