"""Docstrings, comments and messages keep to the words of the field."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "boneage_ray"

INSTEAD = {
    r"lessons?": "pretraining",
    r"told": "reported, says, given",
    r"vouch\w*": "lists",
    r"mends?|mended|mending": "fix, correct",
    r"litter": "system files",
    r"judg\w*": "evaluated on, validated, decided",
}
BANNED = re.compile(rf"(?<![a-z])(?:{'|'.join(INSTEAD)})(?![a-z])", re.IGNORECASE)


def banned_words(source: str) -> list[tuple[int, str]]:
    """(line, word) of every banned word in comments and string literals, docstrings among them; names are free."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    # Strings by ast: before Python 3.12 the token of an f-string holds the names between its braces.
    texts += [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return sorted(
        (line + text[: word.start()].count("\n"), word.group().lower())
        for line, text in texts
        for word in BANNED.finditer(text)
    )


def test_the_package_uses_plain_words():
    found = {
        f"{path.relative_to(ROOT)}:{line}": word
        for path in sorted(ROOT.rglob("*.py"))
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
        ('f"does not fit: {told}"', []),
        ('"supramentale, recommended, untold, a glitter"', []),
        ('"judge_all"', [(1, "judge_all")]),
    ],
)
def test_banned_words_are_found_in_text_only(source, found):
    assert banned_words(source) == found
