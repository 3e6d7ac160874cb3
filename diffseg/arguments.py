"""Checks that many functions share. Their errors name the argument, the value that it got, and a remedy."""

import math
from collections.abc import Sequence
from numbers import Integral, Real


def check_whole(name: str, value: object, remedy: str) -> None:
    """TypeError unless a value is a whole number, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} must be a whole number. {remedy}")


def check_sides(name: str, value: int | tuple[int, int], remedy: str) -> tuple[int, int]:
    """A size that is one side or (height, width), as (height, width).

    Raises:
        TypeError: unless it is one of these.
        ValueError: for sides below 1.
    """
    sides = tuple(value) if isinstance(value, Sequence) and len(value) == 2 else (value, value)
    for side in sides:
        if isinstance(side, bool) or not isinstance(side, Integral):
            raise TypeError(f"{name}={value!r} must be one whole number, or a pair of them, (height, width). {remedy}")
    if min(sides) < 1:
        raise ValueError(f"{name}={value!r} must be at least 1 along each side. {remedy}")
    return sides


def check_threshold(threshold: Real, remedy: str = "It is a distance in nats; the paper takes 0.9 to 1.1.") -> float:
    """One threshold as a float.

    Raises:
        TypeError: unless it is a number.
        ValueError: unless it is above 0 and finite.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise TypeError(f"threshold={threshold!r} must be a number above 0. {remedy}")
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold={threshold!r} must be above 0 and finite. {remedy}")
    return float(threshold)
