"""Recipes in TOML files with other files as bases."""

from __future__ import annotations

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.recipes import find_recipe


def test_a_file_may_build_on_a_file(tmp_path):
    (tmp_path / "a.toml").write_text('base = "demo"\nbatch_size = 8\n')
    (tmp_path / "b.toml").write_text(f'base = "{tmp_path}/a.toml"\nseed = 5\n')
    recipe = find_recipe(str(tmp_path / "b.toml"))
    assert (recipe.batch_size, recipe.seed, recipe.image.size) == (8, 5, find_recipe("demo").image.size)


def test_a_circle_of_files_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(f'base = "{path}"\n')
    with pytest.raises(UsageError, match="circular bases"):
        find_recipe(str(path))


def test_base_has_to_be_a_name(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("base = 3\n")
    with pytest.raises(UsageError, match="base = 3"):
        find_recipe(str(path))
