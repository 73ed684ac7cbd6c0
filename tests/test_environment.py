"""Numbers from environment variables: invalid ones raise an error, no default replaces them silently."""

from __future__ import annotations

import pytest

from boneage_ray.archives.entry import max_input_bytes, max_unpacked_bytes
from boneage_ray.environment import real_number, whole_number
from boneage_ray.errors import UsageError


@pytest.fixture
def given(monkeypatch):
    """Sets the variable of these tests; None leaves it unset."""

    def put(text):
        monkeypatch.delenv("BONEAGE_TEST", raising=False)
        if text is not None:
            monkeypatch.setenv("BONEAGE_TEST", text)

    return put


@pytest.mark.parametrize(("text", "value"), [(None, 7), ("", 7), ("1", 1), ("007", 7), ("4096", 4096)])
def test_a_whole_number(given, text, value):
    given(text)
    assert whole_number("BONEAGE_TEST", 7, "CPUs") == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "many", " 5", "5 MB", "²", "9" * 5000])
def test_anything_else_than_a_whole_number_is_refused(given, text):
    given(text)
    with pytest.raises(UsageError) as error:
        whole_number("BONEAGE_TEST", 7, "CPUs")
    assert str(error.value) == f"BONEAGE_TEST={text}: a whole number of CPUs, 1 or more, is needed"


@pytest.mark.parametrize(("text", "value"), [(None, 7.5), ("", 7.5), ("0.5", 0.5), ("1e3", 1000.0)])
def test_a_number(given, text, value):
    given(text)
    assert real_number("BONEAGE_TEST", 7.5, "seconds") == value


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "soon", "1e999", "1,5"])
def test_anything_else_than_a_number_is_refused(given, text):
    given(text)
    with pytest.raises(UsageError) as error:
        real_number("BONEAGE_TEST", 7.5, "seconds")
    assert str(error.value) == f"BONEAGE_TEST={text}: a number of seconds above 0 is needed"


def test_a_number_has_a_limit(given):
    given("2048")
    assert real_number("BONEAGE_TEST", 64, "MiB", most=2048) == 2048
    given("2048.5")
    with pytest.raises(UsageError, match=r"BONEAGE_TEST=2048\.5: a number of MiB from above 0 to 2048 is needed"):
        real_number("BONEAGE_TEST", 64, "MiB", most=2048)


@pytest.mark.parametrize(
    ("variable", "limit", "default"),
    [
        ("BONEAGE_MAX_INPUT_MB", max_input_bytes, 512 * 2**20),
        ("BONEAGE_MAX_UNPACKED_GB", max_unpacked_bytes, 64 * 2**30),
    ],
)
def test_limits_of_archives_have_no_silent_default(monkeypatch, variable, limit, default):
    monkeypatch.delenv(variable, raising=False)
    assert limit() == default
    for text in ("5GB", "0", "-1", "0.5"):
        monkeypatch.setenv(variable, text)
        with pytest.raises(UsageError, match=f"{variable}={text}: a whole number of .iB, 1 or more, is needed"):
            limit()
