"""Docstrings, comments and messages keep to the words of the field."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "boneage_ray"
# Not clean yet; both become empty.
ROOMS_LEFT_OUT: set[str] = set()
FILES_LEFT_OUT: set[str] = set()

INSTEAD = {
    r"lessons?": "pretraining",
    r"told": "reported, says, given",
    r"vouch\w*": "lists",
    r"mends?|mended|mending": "fix, correct",
    r"litter": "system files",
    r"judg\w*": "evaluated on, validated, decided",
}
BANNED = re.compile(rf"(?<![a-z])(?:{'|'.join(INSTEAD)})(?![a-z])", re.IGNORECASE)
TEXT = {
    getattr(tokenize, name)
    for name in ("COMMENT", "STRING", "FSTRING_MIDDLE")  # f-strings are tokens of their own from Python 3.12 on
    if hasattr(tokenize, name)
}


def banned_words(source: str) -> list[tuple[int, str]]:
    """(line, word) of every banned word in comments and string literals, docstrings among them."""
    return [
        (token.start[0] + token.string[: word.start()].count("\n"), word.group().lower())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type in TEXT
        for word in BANNED.finditer(token.string)
    ]


def left_out(path: Path) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return name in FILES_LEFT_OUT or name.split("/")[0] in ROOMS_LEFT_OUT


def test_the_package_uses_plain_words():
    found = {
        f"{path.relative_to(ROOT)}:{line}": word
        for path in sorted(ROOT.rglob("*.py"))
        if not left_out(path)
        for line, word in banned_words(path.read_text("utf-8"))
    }
    assert found == {}, f"use other words: {INSTEAD}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""What is told.\n\nIt judges."""', [(1, "told"), (3, "judges")]),
        ("x = 1  # mends it", [(1, "mends")]),
        ('f"{x} does not vouch for {y}"', [(1, "vouch")]),
        ('say("Lessons first")', [(1, "lessons")]),
        ("told = is_litter", []),
        ('"supramentale, recommended, untold, a glitter"', []),
        ('"judge_all"', [(1, "judge_all")]),
    ],
)
def test_banned_words_are_found_in_text_only(source, found):
    assert banned_words(source) == found
