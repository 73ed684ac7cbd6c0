"""The text of a table: UTF-8 or UTF-16, separated by commas, semicolons or tabs, as spreadsheets write it."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from boneage_ray import storage
from boneage_ray.errors import UsageError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_BREAK, _QUOTED = re.compile(r"\r\n|\r|\n"), re.compile(r'"[^"]*"')
_SAID = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)
_FORMULA = re.compile(r'="([^"]*)"')
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TO_SAVE = 'in a spreadsheet, save it as "CSV UTF-8"'


@dataclass(frozen=True)
class CsvText:
    """A table's text with its separator; `text` begins at the line `begins`, with the headings."""

    uri: str
    text: str
    separator: str
    begins: int = 1

    @property
    def headings(self) -> Sequence[str]:
        """The headings as written. Raises `UsageError` if the text is not CSV."""
        try:
            return self._reader().fieldnames or []
        except csv.Error as error:
            raise self._no_csv(1, error) from error

    def rows(self) -> Iterator[tuple[int, dict[str, str], list[str]]]:
        """(number of its first line, cells by heading, cells without a heading) of each row.

        Raises `UsageError`, naming the line, for text that is not CSV, above all a quote that is not closed.
        """
        reader = self._reader()
        first = 1
        try:
            if reader.fieldnames:
                first = reader.line_num + 1
            for row in reader:
                surplus = [cell for cell in row.pop(None, []) if cell.strip()]
                yield self.begins - 1 + first, {name: _cell(cell) for name, cell in row.items() if cell}, surplus
                first = reader.line_num + 1
        except csv.Error as error:
            raise self._no_csv(first, error) from error

    def _reader(self) -> csv.DictReader[str]:
        text = io.StringIO(self.text, newline="")
        return csv.DictReader(text, delimiter=self.separator, skipinitialspace=True, strict=True)

    def _no_csv(self, line: int, error: csv.Error) -> UsageError:
        line += self.begins - 1
        return UsageError(f"{self.uri}, line {line}: this row cannot be read ({error}); is a quote missing?")


def read_csv(uri: str, known: Callable[[Sequence[str]], int], lenient: bool = False) -> CsvText:
    """The text of a table; `known` counts the headings that are understood, by which the separator is found.

    A first line `sep=;` names the separator. Raises `UsageError` for bytes that are no text; `lenient`: what cannot be read is
    replaced, for files that need not be tables.
    """
    text = _decoded(storage.read_bytes(uri), uri, lenient)
    first, _, rest = _split_line(text)
    if said := _SAID.fullmatch(first):
        return CsvText(uri, rest, said[1], 2)
    bare = _QUOTED.sub("", first)

    def fits(separator: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:  # reported with its line when the headings are read
            names = []
        return known(names), bare.count(separator)

    return CsvText(uri, text, max(SEPARATORS, key=fits))


def _split_line(text: str) -> tuple[str, str, str]:
    found = _BREAK.search(text)
    return (text[: found.start()], found[0], text[found.end() :]) if found else (text, "", "")


def _decoded(data: bytes, uri: str, lenient: bool) -> str:
    wide = data.startswith(_UTF_16)
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig", errors="replace" if lenient else "strict")
    except UnicodeDecodeError:
        kind = "UTF-16" if wide else "UTF-8"
        raise UsageError(f"{uri} is not a {kind} text file; a CSV table is needed: {_TO_SAVE}") from None
    if "\0" in text and not lenient:
        raise UsageError(f"{uri} is not a text file (it holds zero bytes); a CSV table is needed: {_TO_SAVE}")
    return text.removeprefix("\ufeff")


def _cell(text: str) -> str:
    """A cell without outer spaces; ="0012" is how spreadsheets keep the zeros of a text."""
    plain = text.strip()
    formula = _FORMULA.fullmatch(plain)
    return formula[1].strip() if formula else plain
