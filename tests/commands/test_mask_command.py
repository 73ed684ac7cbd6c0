"""What is said after masks were scored: commands only where they do what they say."""

from __future__ import annotations

import subprocess
import zipfile

import pytest

from boneage_ray.tasks.mask.findings.masks import after_score


@pytest.fixture
def places(tmp_path):
    """Scored images in a folder with a blank in its name, and the masks of one."""
    source, out = tmp_path / "my films", tmp_path / "out"
    for file in (source / "1.png", out / "masks" / "1.png"):
        file.parent.mkdir(parents=True)
        file.write_text("picture")
    return source, out


def next_of(text):
    return text.partition("Next: ")[2]


@pytest.mark.parametrize("there", [False, True])
def test_the_copy_lands_in_masks(places, there):
    source, out = places
    if there:
        (source / "masks").mkdir()
    copy, _, prepare = next_of(after_score(str(source), str(out))).partition(" && ")
    subprocess.run(copy, shell=True, check=True)
    assert [path.name for path in (source / "masks").iterdir()] == ["1.png"]
    assert prepare.startswith(f"boneage prepare '{source}' --recipe resnet34-masked")


def test_masks_that_are_there_are_not_replaced(places):
    source, out = places
    (source / "masks").mkdir()
    (source / "masks" / "1.png").write_text("drawn")
    said = after_score(str(source), str(out))
    assert next_of(said) == ""
    assert f"{source}/masks holds masks already" in said


def test_a_packed_or_single_source_gets_words(places, tmp_path):
    source, out = places
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as file:
        file.writestr("1.png", "picture")
    for place in (tmp_path / "films.zip", source / "1.png"):
        said = after_score(str(place), str(out))
        assert next_of(said) == ""
        assert "Masks serve the images of a folder" in said


def test_what_cp_cannot_reach_gets_words():
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("/films/1.png", "/out/masks/1.png"):
        memory.pipe(name, b"picture")
    said = after_score("memory://films", "memory://out")
    assert "cp -r" not in said
    assert "copy all that is in it to memory://films/masks" in said


def test_no_mask_no_advice(places, tmp_path):
    assert after_score(str(places[0]), str(tmp_path)) == "Masks: none was written"
