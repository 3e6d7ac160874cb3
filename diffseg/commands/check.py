"""Grade the exercises of notebooks that students hand in, and say of each what is wrong with it.

`diffseg check SUBMISSIONS --out scores.csv` runs every notebook in SUBMISSIONS in a process of its own, with limits of
time and memory. What a notebook prints, the outputs that it holds and what it does to the checks count for nothing: its
functions are tried on the inputs of the checks, and this process compares what they return. Stop it whenever you like:
the same command goes on from there, and grades anew what was handed in again.
"""

import argparse
import csv
import io
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

from tqdm.auto import tqdm

from diffseg import __version__
from diffseg.commands.contained import GIB, Limits
from diffseg.commands.grading import Verdict, grade
from diffseg.commands.submissions import Submission, chapters, exercises_of, find_submissions, read_submission
from diffseg.commands.walls import WALLS, best_wall, works
from diffseg.exits import DONE, FAILED, run_command, say
from diffseg.files import sole_user, write_whole
from diffseg.progress import silent

#: The columns of the table; `right` is 1 or 0, and the last two say whether a row still holds.
COLUMNS = ("submission", "exercise", "right", "result", "diagnosis", "note", "sha256", "made_with")
_NO_WALL = (
    "warning: there is no wall around the submissions. They have limits of time and memory, a folder and a home of "
    "their own, but they can read and write what you can, and reach the network. On Linux install bubblewrap; "
    "elsewhere grade the work of strangers in a virtual machine, or under an account of its own."
)

Row = Mapping[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        The exit status: 0 if every submission has its share of the exercises right, 1 if one has not, 2 if the
        command cannot be carried out as it was given.
    """
    given = _parser().parse_args(arguments)
    return run_command(lambda: _check(given), given.out or "no file, for want of --out")


def parse_amount(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0.")
    return value


def parse_share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1.")
    return value


def parse_exercises(text: str) -> tuple[str, ...]:
    """Names of checks, with commas between them."""
    known = [name for names in chapters() for name in names]
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or (unknown := [name for name in names if name not in known]):
        raise argparse.ArgumentTypeError(
            f"{unknown[0] if names else text!r} is no exercise; there are {', '.join(known)}."
        )
    return names


def _check(given: argparse.Namespace) -> int:
    """Grade what is not graded yet; returns the exit status."""
    wall = given.wall or best_wall()
    if not works(wall):
        raise ValueError(f"--wall {wall} does not work here. Leave it out: the best that does is {best_wall()}.")
    if wall == "none":
        say(_NO_WALL)
    limits = Limits(given.timeout, int(given.memory * GIB))
    made_with = f"diffseg {__version__}, {limits}, {wall}{', whole' if given.whole else ''}"
    found = find_submissions(given.submissions)
    with _table(given.out) as rows:
        for one in tqdm(found, desc="check", unit="submission", disable=silent()):
            for row in _rows(one, rows, made_with, given, limits, wall):
                rows[row["submission"], row["exercise"]] = row
            _write(given.out, rows)
    names = {one.name for one in found}
    return _report([row for row in rows.values() if row["submission"] in names], given)


def _rows(
    one: Submission, rows: dict, made_with: str, given: argparse.Namespace, limits: Limits, wall: str
) -> list[Row]:
    """The rows of a submission; they are taken out of `rows` if they are there already."""
    old = [rows.pop(key) for key in [*rows] if key[0] == one.name]
    try:
        one = read_submission(one)
        exercises = given.exercises or exercises_of(one)
        if not exercises:
            raise ValueError("it holds no exercise: no cell calls a check of diffseg")
    except (ValueError, OSError) as error:
        return [_row(one, "", Verdict("unreadable", f"{error}."), made_with)]
    # Rows are kept if they are about the same file, were made in the same way, and are all there.
    kept = [row for row in old if row["sha256"] == one.sha256 and row["made_with"] == made_with]
    if [row["exercise"] for row in kept] == [*exercises]:
        return kept
    verdicts = grade(one, exercises, limits, wall, given.whole)
    return [_row(one, name, verdict, made_with) for name, verdict in verdicts.items()]


def _row(one: Submission, exercise: str, verdict: Verdict, made_with: str) -> Row:
    right = str(int(verdict.result == "right"))
    values = (one.name, exercise, right, verdict.result, verdict.diagnosis, verdict.note, one.sha256, made_with)
    return dict(zip(COLUMNS, map(_plain, values), strict=True))


def _plain(text: str) -> str:
    """One line without control characters, which a student's message may hold for the terminal's sake."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


@contextmanager
def _table(out: Path | None) -> Iterator[dict[tuple[str, str], Row]]:
    """The rows of a table, (submission, exercise) -> row; its folder is this command's alone meanwhile.

    Raises:
        ValueError: if the file is another table, or none.
    """
    if out is None:
        yield {}
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with sole_user(out.parent):
        yield _read(out) if out.exists() else {}


def _read(out: Path) -> dict[tuple[str, str], Row]:
    try:
        table = csv.DictReader(io.StringIO(out.read_text(encoding="utf-8-sig"), newline=""))
        rows = [{name: _unguarded(value) for name, value in row.items()} for row in table]
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ValueError("other columns")
    except (ValueError, TypeError, AttributeError, csv.Error):
        raise ValueError(
            f"--out {str(out)!r} is there and is no table of `diffseg check`. Give another file."
        ) from None
    return {(row["submission"], row["exercise"]): row for row in rows}


def _write(out: Path | None, rows: Mapping[tuple[str, str], Row]) -> None:
    if out is None:
        return
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS)
    table.writeheader()
    order = sorted(rows.values(), key=lambda row: row["submission"])
    table.writerows({name: _guarded(value) for name, value in row.items()} for row in order)
    # With a mark at the beginning, by which spreadsheets know that it is Unicode.
    write_whole(out, text.getvalue().encode("utf-8-sig", "backslashreplace"))


def _guarded(value: str) -> str:
    """A value that no spreadsheet takes for a formula, which could come from the name of a file."""
    return f"'{value}" if value[:1] in tuple("=+-@") else value


def _unguarded(value: str) -> str:
    return value[1:] if value[:1] == "'" and value[1:2] in tuple("=+-@") else value


def _report(rows: Sequence[Row], given: argparse.Namespace) -> int:
    """Print the table; returns the exit status."""
    width = shutil.get_terminal_size((120, 24)).columns
    first = max(len(row["submission"]) for row in rows)
    second = max(len(row["exercise"]) for row in rows)
    for row in sorted(rows, key=lambda row: row["submission"]):
        start = f"{row['submission']:{first}}  {row['exercise']:{second}}  {row['result']:10}"
        about = row["diagnosis"] + (f" [{row['note']}]" if row["note"] else "")
        print(f"{start}  {shorten(about, max(40, width - len(start) - 2), placeholder=' ...')}".rstrip())
    names = sorted({row["submission"] for row in rows})
    shares = [_share([row for row in rows if row["submission"] == name]) for name in names]
    passed = sum(share >= given.share for share in shares)
    print(f"{passed} of {len(names)} submissions have {given.share:.0%} of their exercises right")
    return DONE if passed == len(names) else FAILED


def _share(rows: Sequence[Row]) -> float:
    return sum(row["right"] == "1" for row in rows) / len(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffseg check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", nargs="+", type=Path, metavar="NOTEBOOK|FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="keep the table, a row for each exercise")
    parser.add_argument(
        "--timeout", type=parse_amount, default=Limits.seconds, metavar="S",
        help="seconds for a submission, after PyTorch is loaded (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=parse_amount, default=Limits.memory / GIB, metavar="GB",
        help="for a submission; PyTorch alone takes half of one (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--exercises", type=parse_exercises, metavar="NAMES", help="these only, with commas: symmetric_kl,unseen"
    )
    parser.add_argument(
        "--pass", dest="share", type=parse_share, default=1.0, metavar="SHARE",
        help="of its exercises that a submission needs for exit status 0 (default: 1, all)",
    )  # fmt: skip
    parser.add_argument(
        "--whole", action="store_true", help="run all cells, not only the exercises and what they need: minutes"
    )
    parser.add_argument("--wall", choices=WALLS, help="what keeps submissions in; default: the best that works here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
