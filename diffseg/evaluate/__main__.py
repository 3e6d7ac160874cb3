"""Score DiffSeg and other methods on a data set: accuracy, mean IoU and boundary IoU, each with an interval.

Stop it whenever you like, with Ctrl-C or by force: the same command goes on from there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .. import IMAGE_SIZE
from ..datasets import DATASETS, SPLITS, open_dataset
from ..exits import DONE, FAILED, run_command, say
from ..files import write_whole
from ..metrics import PROTOCOLS
from .counting import DATASET
from .methods import METHODS
from .report import Report
from .run import evaluate
from .tables import LEVEL

WORDS = ("true", "caption")
_SHOWN = 10  # unusable images that are named
_SCORES = ("accuracy", "miou", "boundary")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 if all images were scored, 1 if some could not be used."""
    given = _parser().parse_args(arguments)
    out = given.out or Path("runs") / f"{given.dataset}-{given.split}.parquet"
    return run_command(lambda: _evaluate(given, out), out)


def _evaluate(given: argparse.Namespace, out: Path) -> int:
    data = open_dataset(given.dataset, given.root, given.split, given.listing).head(given.limit)
    report = evaluate(
        data,
        _as_dict([*given.method, *((f"diffseg+{words}", None) for words in given.words)]),
        out,
        given.model,
        given.size,
        given.device,
        given.scheduler,
        given.protocol,
        tell=say,
    )
    compared = report.compare(*given.compare) if given.compare else None
    if given.tables:
        _write_tables(report, given.tables)
    _show(report, compared, given.compare)
    for reason in list(report.unusable.values())[:_SHOWN]:
        say(f"not scored: {reason}")
    if report.unusable:
        say(
            f"{len(report.unusable)} of {len(data)} images are not in these scores. Mend them and give the same "
            "command again: only they are tried."
        )
    return FAILED if report.unusable else DONE


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


def _show(report: Report, compared: pd.DataFrame | None, names: Sequence[str] | None) -> None:
    """The scores with their intervals, what they leave out, and a comparison."""
    scores = report.scores
    shown = scores[["method", "setting", "protocol", "images"]].copy()
    for name in _SCORES:
        shown[name] = [
            "-" if pd.isna(value) else f"{value:.4f} [{low:.3f}, {high:.3f}]"
            for value, low, high in zip(scores[name], scores[f"{name}_low"], scores[f"{name}_high"])
        ]
    shown["setting"] = ["-" if pd.isna(value) else f"{value:g}" for value in scores.setting]
    print(shown.to_string(index=False))
    print(f"[low, high]: {LEVEL:.0%} intervals, by the bootstrap over images.")
    for protocol, policy in report.policies.items():
        print(f"{protocol}: {policy}.")
    if compared is not None:
        print(f"{names[0]} minus {names[1]}, on the same images:")
        print(compared.to_string(index=False, float_format="{:+.4f}".format))


def _write_tables(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("scores", "classes", "sizes", "images"):
        text = getattr(report, name).to_csv(index=False, lineterminator="\n")
        write_whole(folder / f"{name}.csv", text.encode())


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
    parser.add_argument(
        "--words",
        nargs="+",
        choices=WORDS,
        default=[],
        help="score names of masks, too: those of a caption, or, as an upper bound, those that the truth shows",
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        choices=(*PROTOCOLS, DATASET),
        default=PROTOCOLS,
        help="how segments are matched to classes: one matching per image, or one for the whole data set",
    )
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="the difference of two of the methods, with its interval"
    )
    parser.add_argument("--tables", type=Path, metavar="FOLDER", help="write scores, classes, sizes and images as CSV")
    parser.add_argument("--root", metavar="FOLDER", help="of the data set, or its name on the Hugging Face hub")
    parser.add_argument("--split", choices=SPLITS, default="val", help="tune: for choosing settings; val: to report")
    parser.add_argument(
        "--list",
        dest="listing",
        type=Path,
        help="of cocostuff27: names of images, one a line; of hub: a CSV file of values and names",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--out", type=Path, help="a folder of Parquet files; default: runs/DATASET-SPLIT.parquet")
    parser.add_argument("--model", help="pocket, a folder or a hub id; default: $DIFFSEG_MODEL, else pocket")
    parser.add_argument("--size", type=int, default=IMAGE_SIZE, help="side of the image, pixels")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU if there is one")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask scheduler; local:N: N processes here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
