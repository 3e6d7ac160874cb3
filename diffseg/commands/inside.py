"""What runs behind the wall: the cells of a submission, then its functions on the inputs of the checks.

It says what came out and never whether that is right: the student's code shares this process and can change anything
in it. Whoever listens must expect lies, see `diffseg.commands.grading`.
"""

import copy
import json
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from diffseg.commands import wire
from diffseg.commands.needed import needed

_TEXT = 300  # signs of a message of an error that are handed on


class Handed:
    """Stands for a check in the student's cells: it takes the function and says nothing."""

    def __init__(self, name: str, functions: dict[str, Any]) -> None:
        self.name, self.functions = name, functions

    def __repr__(self) -> str:
        return f"check.{self.name}"

    def __call__(self, mine: Any) -> None:
        self.functions[self.name] = mine


def main() -> None:
    """Read a job from standard input, and say on what was standard output what becomes of it."""
    job = json.load(sys.stdin.buffer)
    tell = _channel()
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from diffseg import check

    _limit(job)
    functions: dict[str, Any] = {}
    inputs = {name: [case.arguments for case in getattr(check, name).cases] for name in job["exercises"]}
    _put_in_place(check, functions)
    sys.path.insert(0, os.getcwd())
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    cells = [shell.transform_cell(source) for source in job["cells"]]
    first = 0 if job["whole"] else job["first"]
    tell(at="ready")
    for statement in needed(cells[:first], cells[first:]):
        shell.run_cell(statement)
    for number, source in enumerate(job["cells"]):
        if number >= first and number not in job["skip"]:
            tell(at="cell", cell=number)
            error = shell.run_cell(source)
            if error := error.error_before_exec or error.error_in_exec:
                tell(at="error", cell=number, **_about(error))
    for name in job["exercises"]:
        tell(at="exercise", name=name)
        mine = functions.get(name, shell.user_ns.get(name) if name in job["defined"] else None)
        if name in functions or mine is not None:
            _try(name, mine, inputs[name], tell)
    tell(at="done")
    os._exit(0)  # whatever threads and handlers there are


def _try(name: str, mine: Any, inputs: list[tuple], tell: Callable[..., None]) -> None:
    """Call a function with each input, up to the first error."""
    if not callable(mine):
        tell(at="no function", name=name)
        return
    if str(getattr(mine, "__module__", "")).split(".")[0] == "diffseg":
        tell(at="library", name=name)
        return
    for number, given in enumerate(inputs):
        arguments = copy.deepcopy(given)
        try:
            packed = wire.pack(mine(*arguments))
        except BaseException as error:  # also of sys.exit
            tell(at="raised", name=name, case=number, **_about(error))
            return
        tell(at="result", name=name, case=number, result=packed, arguments=wire.pack(arguments))


def _about(error: BaseException) -> dict[str, str]:
    try:
        text = str(error)
    except BaseException:  # it is the student's class
        text = ""
    return {"type": type(error).__name__[:_TEXT], "text": text[:_TEXT]}


def _channel() -> Callable[..., None]:
    """What was standard output becomes a way to talk; from then on what is printed goes nowhere."""
    descriptor, own = os.dup(1), os.getpid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(descriptor, os.O_BINARY)

    def tell(**message: Any) -> None:
        if os.getpid() != own:  # a fork that has left its cell: there is one of us already
            os._exit(0)
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(descriptor, line) :]

    return tell


def _limit(job: Mapping[str, Any]) -> None:
    """Limits that the operating system keeps for this process and for those that it starts; Windows has none."""
    try:
        import resource
    except ImportError:
        return
    limits = {
        "RLIMIT_DATA": job["memory"],
        "RLIMIT_FSIZE": job["files"],
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": job["tasks"],
        # Of the processor: what outlives its watcher comes to an end too.
        "RLIMIT_CPU": int(job["seconds"] * (os.cpu_count() or 1)) + 60,
    }
    for name, value in limits.items():
        number = getattr(resource, name, None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))


def _put_in_place(check: ModuleType, functions: dict[str, Any]) -> None:
    """Let the student's `check` be one whose checks take functions and do nothing else."""
    import diffseg

    instead = ModuleType(check.__name__, check.__doc__)
    for name in check.__all__:
        value = getattr(check, name)
        setattr(instead, name, Handed(name, functions) if isinstance(value, check.Check) else value)
    diffseg.check = sys.modules[check.__name__] = instead
