"""Captions that name everything that can be seen in a scene."""

from collections import Counter

import numpy as np

from .catalogue import STUFF_BY_NAME, THING_BY_NAME

_NUMBERS = {2: "two", 3: "three", 4: "four"}


def join(parts: list[str]) -> str:
    """["a dog", "a car", "a tree"] -> "a dog, a car and a tree"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]])) if parts else ""


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def count_things(things: list[tuple[str, str]]) -> list[str]:
    """(paint, name) pairs, paint "" where there is none -> "a red car", "two sheep", ... in order of appearance."""
    counts = Counter(name for _, name in things)
    phrases = []
    for name, number in counts.items():
        paint = next(paint for paint, other in things if other == name)
        if number == 1:
            phrases.append(_with_article(f"{paint} {name}".strip()))
        else:
            phrases.append(f"{_NUMBERS[number]} {THING_BY_NAME[name].plural}")
    return phrases


def describe(
    rng: np.random.Generator,
    grounds: list[str],
    backs: list[str],
    standing: dict[str, list[tuple[str, str]]],
) -> str:
    """One English sentence.

    Args:
        rng: chooses among equivalent wordings.
        grounds: names of the visible stuff that things can stand on, nearest last.
        backs: names of the visible stuff behind (forest, wall, mountain), the sky excepted.
        standing: stuff name (a ground, or "sky") -> the (paint, thing) pairs that stand there; the key "sky" is
            present when the sky is visible.
    """
    crowded = [ground for ground in grounds if standing.get(ground)]
    empty = [STUFF_BY_NAME[ground].phrase for ground in grounds if ground not in crowded]
    flying = count_things(standing.get("sky", []))
    clauses = [f"{join(count_things(standing[g]))} {STUFF_BY_NAME[g].stand}" for g in crowded]
    behind = join([STUFF_BY_NAME[name].phrase for name in backs])
    sky_is_said = False
    if clauses:
        words = join(clauses)
        if empty:
            words += f" {rng.choice(['beside', 'next to'])} {join(empty)}"
    else:
        words, sky_is_said = f"{join(flying)} in the sky above {join(empty)}", True
        flying = []
    if behind:
        words += f" {rng.choice(['in front of', 'before'])} {behind}"
    if flying:
        words += f", with {join(flying)} in the sky"
    elif "sky" in standing and not sky_is_said:
        words += " under the sky"
    return words[0].upper() + words[1:]
