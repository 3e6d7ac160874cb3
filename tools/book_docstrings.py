"""Docstrings as they are written here, in plain text, for Sphinx, which reads reStructuredText."""

import re
from collections.abc import Iterable

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
ENTRY = re.compile(r" {4}(\w+): (.*)")
EQUATIONS = re.compile(r"(?<=Eq\. )\d+(?:(?:, | and | to )\d+)*")


def as_rest(lines: Iterable[str]) -> list[str]:
    """A docstring's lines: indented blocks become code, equations links, and signs that are no markup are escaped."""
    out, section, entries = [], "", []
    code = False
    for line in lines:
        if heading := SECTION.match(line):
            section, code = heading[1], False
        elif line and not line.startswith(" "):
            section, code = "", False
        elif line and not section and not code and (not out or not out[-1]):
            out += ["::", ""]
            code = True
        if section == "Returns":
            entries.append(len(out))
        out.append(line if code else link_equations(escape(line)))
    return listed(out, entries)


def escape(line: str) -> str:
    """Text in which stars and bars are no markup, but for what is quoted as code."""
    parts = re.split(r"(`[^`]*`|^\s*[*-] )", line)
    return "".join(part if index % 2 else re.sub(r"([*|])", r"\\\1", part) for index, part in enumerate(parts))


def link_equations(line: str) -> str:
    """ "Eq. 2 and 3" with links to the paper's equations in the reference."""
    return EQUATIONS.sub(lambda some: re.sub(r"\d+", lambda one: f":ref:`{one[0]} <eq-{one[0]}>`", some[0]), line)


def listed(lines: list[str], places: list[int]) -> list[str]:
    """The lines at some places, which say what is returned, as a list if they are several things with names."""
    named = [place for place in places if ENTRY.match(lines[place])]
    if len(named) < 2:
        return lines
    out = list(lines)
    for place in places[1:]:
        entry = ENTRY.match(lines[place])
        out[place] = f"    * **{entry[1]}**: {entry[2]}" if entry else re.sub(r"^ {8}", " " * 6, lines[place])
    return [*out[: places[1]], "    Several results, in this order.", "", *out[places[1] :]]
