"""LaTeX as MathML, which browsers draw without a script."""

import re

from latex2mathml.converter import convert

# A name such as log, what stands before it, and whether a bracket follows.
NAMED = re.compile(r"(</m(?!o>)\w+>)?<mi>(arccos|cos|exp|lim|ln|log|max|min|sin)</mi>(?=(<mo[^>]*>(?:\(|&#x00028;))?)")
THIN = "0.17em"


def draw(latex: str, display: str) -> str:
    """A formula as MathML.

    Args:
        latex: without dollar signs.
        display: "inline", or "block" for a line of its own.
    """
    return NAMED.sub(_spaced, convert(latex, display=display))


def _spaced(match: re.Match) -> str:
    """The name of a function as an operator, with the thin spaces around it that TeX gives."""
    before, name, bracket = match.groups()
    left, right = THIN if before else "0", "0" if bracket else THIN
    return f'{before or ""}<mo lspace="{left}" rspace="{right}">{name}</mo>'
