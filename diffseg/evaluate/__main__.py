"""Score DiffSeg and other methods on a data set: accuracy and mean IoU, with one matching per image.

Stop it whenever you like, with Ctrl-C or by force: the same command goes on from there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import IMAGE_SIZE
from ..datasets import DATASETS, SPLITS, open_dataset
from .methods import METHODS
from .run import evaluate

DONE, UNUSABLE, WRONG, STOPPED = 0, 1, 2, 130  # exit statuses
_SHOWN = 10  # unusable images that are named


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 if all images were scored, 1 if some could not be used."""
    given = _parser().parse_args(arguments)
    out = given.out or Path("runs") / f"{given.dataset}-{given.split}.parquet"
    try:
        data = open_dataset(given.dataset, given.root, given.split, given.listing).head(given.limit)
        report = evaluate(data, _as_dict(given.method), out, given.model, given.size, given.device, given.scheduler)
    except KeyboardInterrupt:
        print(f"Stopped. What was done is kept in {out}; the same command goes on from there.", file=sys.stderr)
        return STOPPED
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    print(report.scores.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))
    for reason in list(report.unusable.values())[:_SHOWN]:
        print(f"not scored: {reason}", file=sys.stderr)
    if report.unusable:
        print(
            f"{len(report.unusable)} of {len(data)} images are not in these scores. Mend them and give the same "
            "command again: only they are tried.",
            file=sys.stderr,
        )
    return UNUSABLE if report.unusable else DONE


def parse_method(text: str) -> tuple[str, tuple[float, ...] | None]:
    """A method as it stands on the command line: "diffseg", or "diffseg=0.9,1.1" with the settings to try."""
    name, equals, values = text.partition("=")
    if not equals:
        return name, None
    try:
        return name, tuple(float(value) for value in values.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must look like {name}=0.9,1.1") from None


def _as_dict(methods: Sequence[tuple[str, tuple[float, ...] | None]]) -> dict[str, tuple[float, ...] | None]:
    names = [name for name, _ in methods]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"method {name} is named twice; give all its settings at once, as in {name}=0.9,1.1.")
    return dict(methods)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m diffseg.evaluate", description=__doc__)
    parser.add_argument("--dataset", choices=DATASETS, default=DATASETS[0])
    parser.add_argument(
        "--method",
        nargs="+",
        type=parse_method,
        default=[("diffseg", None)],
        metavar="NAME[=VALUE,...]",
        help=f"one or more of {', '.join(METHODS)}; with the settings to try, such as DiffSeg's thresholds",
    )
    parser.add_argument("--root", type=Path, help="the folder of cocostuff27 or cityscapes")
    parser.add_argument("--split", choices=SPLITS, default="val", help="tune: for choosing settings; val: to report")
    parser.add_argument("--list", dest="listing", type=Path, help="names of cocostuff27's images, one a line")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--out", type=Path, help="a folder of Parquet files; default: runs/DATASET-SPLIT.parquet")
    parser.add_argument("--model", help="pocket, a folder or a hub id; default: $DIFFSEG_MODEL, else pocket")
    parser.add_argument("--size", type=int, default=IMAGE_SIZE, help="side of the image, pixels")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU if there is one")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler; local:N: N processes here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
