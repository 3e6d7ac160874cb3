"""Checks for the exercises of the notebooks: `check.symmetric_kl(mine)` tries your function and says what is wrong.

Every check is a `Check`. The modules of this package go with one notebook each; names below are loaded from them.
"""

from ._exercise import Case, Check, Mistake, NotYet

__all__ = ["Case", "Check", "Mistake", "NotYet"]
