"""Segment pictures, or all pictures in folders, and keep the masks as files.

Of PHOTOS/sea/one.jpg, `diffseg segment PHOTOS --out MASKS` makes MASKS/sea/one.jpg.labels.png (segment number in each
pixel, 0 where nothing was segmented) and MASKS/sea/one.jpg.json (words, areas, boxes, settings). Stop it whenever you
like, with Ctrl-C or by force: the same command goes on from there.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from diffseg.arguments import check_threshold
from diffseg.commands.pictures import Found, find_pictures
from diffseg.commands.work import FATAL, Job, Outcome, make_groups, other_versions, work
from diffseg.exits import DONE, FAILED, run_command, say
from diffseg.files import remove_leftovers, sole_user
from diffseg.models.paths import name_model
from diffseg.plus import METHODS
from diffseg.progress import silent
from diffseg.semantics import name_words

_SHOWN = 20  # failures that are named


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        The exit status: 0 if there is a result for every picture, 1 if some failed or the disk is full, 2 if the
        command cannot be carried out as it was given.
    """
    given = _parser().parse_args(arguments)
    return run_command(lambda: _segment(given), given.out)


def parse_words(text: str) -> str | tuple[str, ...]:
    """Words as they stand on the command line: "caption", or "car,road"."""
    if text == "caption":
        return text
    try:
        _, nouns = name_words(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return tuple(noun.word for noun in nouns)


def parse_threshold(text: str) -> float:
    """A threshold, checked."""
    try:
        return check_threshold(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 on.")
    return int(text)


def _job(given: argparse.Namespace) -> Job:
    return Job(
        out=Path(given.out).expanduser().absolute(),
        model=name_model(given.model),
        words=given.words,
        threshold=given.threshold,
        size=given.size,
        crop=not given.whole,
        method=given.method,
        overlay=given.overlay,
        device=given.device,
    )


def _segment(given: argparse.Namespace) -> int:
    """Do what is left to be done; returns the exit status."""
    job, outcomes = _job(given), []
    found = find_pictures(given.pictures, given.out)
    try:
        with _own_folder(job.out):
            _run(found, job, given.batch, given.scheduler, outcomes)
    except OSError as error:
        if error.errno not in FATAL:
            raise
        say(f"error: {error}")
        say("Make room and give the same command again: what was done is kept.")
        _report(found, outcomes)
        return FAILED
    return _report(found, outcomes)


@contextmanager
def _own_folder(out: Path) -> Iterator[None]:
    """The folder of results, for this command alone, without what killed ones left.

    Raises:
        BlockingIOError: if another command is at work in it.
        OSError: if nothing can be written to it.
    """
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(sole_user(out))
            remove_leftovers(out)
        except BlockingIOError:
            raise
        except OSError as error:
            raise OSError(f"out={str(out)!r} cannot be written to ({error.strerror}). Give another folder.") from error
        yield


def _run(found: Found, job: Job, batch: int, scheduler: str | None, outcomes: list[Outcome]) -> None:
    """Segment what is missing; the outcomes are added to the list as they come."""
    groups = make_groups(found.pictures, batch, job.out)
    with (
        tqdm(desc="segment", total=len(found.pictures), unit="picture", disable=silent()) as bar,
        closing(work(groups, job, scheduler)) as done,
    ):
        for some in done:
            outcomes += some
            failed = sum(outcome.failure is not None for outcome in outcomes)
            bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
            bar.update(len(some))  # those that are kept come first; the rate soon forgets how quick they were


def _report(found: Found, outcomes: Sequence[Outcome]) -> int:
    """Say how it went; returns the exit status."""
    failures = [f"{outcome.picture.path}: {outcome.failure}" for outcome in outcomes if outcome.failure is not None]
    failures = [*found.unreadable, *sorted(failures)]
    kept = sum(outcome.kept for outcome in outcomes)
    print(
        f"{len(outcomes) - kept - len(failures) + len(found.unreadable)} segmented, {kept} kept, {len(failures)} failed"
    )
    if found.left_out:
        kinds = ", ".join(f"{count} {kind or 'without ending'}" for kind, count in found.left_out.most_common())
        say(f"Left out as no pictures: {kinds}")
    older = Counter(f"{name} {old}" for outcome in outcomes for name, old in other_versions(outcome).items())
    if older:
        say(f"warning: some that were kept were made by other versions: {', '.join(older)}")
    for failure in failures[:_SHOWN]:
        say(f"failed: {failure}")
    if len(failures) > _SHOWN:
        say(f"... and {len(failures) - _SHOWN} more")
    if failures:
        say("Mend them and give the same command again: only they are tried.")
    return FAILED if failures else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffseg segment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE|FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    parser.add_argument(
        "--words",
        type=parse_words,
        metavar="WORDS",
        help="names for the masks: car,road,sky; or caption: the nouns of a caption of each picture",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="pocket, a folder or a hub id; default: $DIFFSEG_MODEL, else pocket"
    )
    parser.add_argument(
        "--threshold", type=parse_threshold, metavar="T", help="for merging, nats; default: the model's"
    )
    parser.add_argument("--size", type=parse_count, metavar="N", help="short side of what is segmented, pixels")
    parser.add_argument("--whole", action="store_true", help="the whole picture instead of its central square")
    parser.add_argument(
        "--method",
        choices=list(METHODS),
        default="paper",
        help="plus: better outlines, a little slower (default: paper)",
    )
    parser.add_argument("--overlay", action="store_true", help="a third file: the picture, tinted by its masks")
    parser.add_argument("--batch", type=parse_count, default=1, metavar="N", help="pictures in one pass (default: 1)")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU if there is one")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler; local:N: N processes here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
