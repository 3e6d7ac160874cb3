"""What a submission is worth: the student's functions run behind the wall, the checks here, on what they returned.

A verdict rests on two things only, the values that came back and this process's own checks. The other process may
print "right", replace `diffseg.check` or send whatever it likes: to pass, it has to send the right values.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil

from diffseg import check
from diffseg.check import Check, NotYet
from diffseg.commands import wire
from diffseg.commands.contained import GIB, Ended, Limits, run_contained
from diffseg.commands.submissions import Submission

_SKIPPED = 5  # cells outside of the exercises that may be left out, each after a run that had to be stopped
_TASKS = 128  # threads and processes that a submission may add to those of the user
_MALFORMED = (ValueError, KeyError, TypeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class Verdict:
    """About one exercise of one submission.

    Attributes:
        result: "right"; "wrong"; "open": still to be written; "missing"; "error": it raised one; "ended": it ended
            Python or crashed it; or the limit that it met: "time", "memory", "processes" or "output".
        diagnosis: what is wrong, for the student to read; "" if nothing is.
        note: what the teacher should look at.
    """

    result: str
    diagnosis: str = ""
    note: str = ""


def grade(
    submission: Submission, exercises: Sequence[str], limits: Limits, wall: str, whole: bool = False
) -> dict[str, Verdict]:
    """A verdict on each exercise.

    A cell or a function that has to be stopped costs only what depends on it: the rest is run again without it.

    Args:
        submission: read.
        exercises: names of checks.
        limits: of each run.
        wall: a name of `walls.WALLS`.
        whole: run all cells, not only those of the exercises and what they need.

    Raises:
        OSError: if no process can be started.
    """
    cells = {name: submission.cells_of(name) for name in exercises}
    verdicts = {
        name: Verdict("missing", f"No cell hands a function to check.{name}.") for name in exercises if not cells[name]
    }
    left, skip, notes = [name for name in exercises if cells[name]], set(), []
    first = min((min(each) for each in cells.values() if each), default=0)
    while left:
        ended = run_contained(_job(submission, cells, left, first, skip, whole, limits), limits, wall)
        now = {name: _verdict(getattr(check, name), cells[name], ended) for name in left}
        now = _blame(ended, now, cells, skip, limits, notes, len(submission.cells))
        for name, verdict in now.items():
            noted = "; ".join(filter(None, [*notes, _note(submission, name, cells[name])]))
            verdicts[name] = Verdict(verdict.result, verdict.diagnosis, noted)
        left = [name for name in left if name not in now]
    return {name: verdicts[name] for name in exercises}


def _blame(
    ended: Ended, now: Mapping[str, Verdict | None], cells: Mapping[str, list[int]], skip: set[int], limits: Limits,
    notes: list[str], count: int,
) -> dict[str, Verdict]:  # fmt: skip
    """The verdicts of a run: on what was ready and, if that is not all, on what is to blame.

    There is always one at least, or one more cell to be skipped, so that runs come to an end.
    """
    ready = {name: verdict for name, verdict in now.items() if verdict is not None}
    if len(ready) == len(now):
        return ready
    begun = [message for message in ended.messages if message.get("at") in ("cell", "exercise")]
    last = begun[-1] if begun else {}
    guilty = _limit_met(ended.how, limits)
    number, name = last.get("cell"), last.get("name")
    if isinstance(number, int) and number in range(count) and number not in skip and len(notes) < _SKIPPED:
        skip.add(number)
        own = [each for each in now if {*cells[each]} <= skip]
        if not own:
            notes.append(f"without code cell {number + 1}, which {guilty.diagnosis.removeprefix('It ').rstrip('.')}")
        return ready | {each: guilty for each in own}
    if isinstance(name, str) and name in now and name not in ready:
        return ready | {name: guilty}
    return ready | {each: guilty for each in now if each not in ready}


def _limit_met(how: str, limits: Limits) -> Verdict:
    said = {
        "time": f"It did not end within {limits.seconds:g} seconds: is there a loop without an end?",
        "memory": f"It took more than {limits.memory / GIB:g} GB of memory.",
        "processes": f"It started more than {limits.processes} processes.",
        "output": f"It returned more than {limits.answer >> 20} MB.",
    }
    return Verdict(how, said[how]) if how in said else Verdict("ended", "It ended Python, or crashed it.")


def _verdict(checked: Check, cells: Sequence[int], ended: Ended) -> Verdict | None:
    """On one exercise, from what was said about it; None if it was not said to the end."""
    said = [each for each in ended.messages if each.get("name") == checked.name and each.get("at") != "exercise"]
    for kind, diagnosis in {
        "no function": f"check.{checked.name} takes the function itself, not its result.",
        "library": "That is the function of the library: write one of your own.",
    }.items():
        if any(each.get("at") == kind for each in said):
            return Verdict("wrong", diagnosis)
    for number, case in enumerate(checked.cases):
        answer = next((each for each in said if each.get("case") == number), None)
        if answer is None:
            return _without_answer(checked.name, cells, ended) if number == 0 and ended.how == "done" else None
        if answer.get("at") == "raised":
            return _raised(answer, case.about)
        try:
            result = wire.unpack(answer["result"])
            arguments = wire.unpack(answer["arguments"])
            # What cannot be sent, such as a function among the arguments, was not sent.
            known = [ours if isinstance(its, wire.Foreign) else its for its, ours in zip(arguments, case.arguments)]
            checked.judge(case, result, tuple(known))
        except NotYet as problem:
            return Verdict("wrong", str(problem))
        except _MALFORMED:
            return Verdict("wrong", f"What it returned cannot be compared, for {case.about}.")
    return Verdict("right")


def _raised(answer: Mapping[str, Any], about: str) -> Verdict:
    kind, text = str(answer.get("type")), str(answer.get("text"))
    if kind == "NotImplementedError":
        return Verdict("open", "It is still to be written.")
    if kind == "MemoryError" or "can't allocate memory" in text:
        return Verdict("memory", f"It took more memory than there is for it, for {about}.")
    return Verdict("error", f"It raised {kind}: {text} (for {about})")


def _without_answer(name: str, cells: Sequence[int], ended: Ended) -> Verdict:
    """Nothing was handed to the check: why?"""
    for each in ended.messages:
        if each.get("at") == "error" and each.get("cell") in cells:
            return Verdict("error", f"Its cell raised {each.get('type')}: {each.get('text')}")
    return Verdict("missing", f"Its cell hands nothing to check.{name}.")


def _note(submission: Submission, name: str, cells: Collection[int]) -> str:
    """Whether a function seems to lean on the library's function of the same name, from the words of its cell."""
    leaning = re.compile(rf"(?<!\bcheck)\.{name}\b|\bimport\b.*\b{name}\b|\.reference\b")
    if any(leaning.search(submission.cells[number]) for number in cells):
        return f"it may lean on a function of the library that is called {name}, too"
    return ""


def _job(
    submission: Submission, cells: Mapping[str, list[int]], left: Sequence[str], first: int, skip: Collection[int],
    whole: bool, limits: Limits,
) -> bytes:  # fmt: skip
    job = {
        "cells": submission.cells,
        "first": first,
        "skip": sorted(skip),
        "whole": whole,
        "exercises": list(left),
        "defined": [name for name in left if cells[name]],
        "seconds": limits.seconds,
        "memory": limits.memory,
        "files": limits.files,
        "tasks": _tasks() + _TASKS,
    }
    return json.dumps(job).encode()


@cache
def _tasks() -> int:
    """Threads of this user, which the operating system counts against the limit of one that is started."""
    me = psutil.Process().username()
    running = psutil.process_iter(["username", "num_threads"])
    return sum(each.info["num_threads"] or 1 for each in running if each.info["username"] == me)
