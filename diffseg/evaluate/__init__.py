"""Scoring methods on data sets, image by image, so that a run can be stopped anywhere and taken up again.

    python -m diffseg.evaluate --dataset pocket --method diffseg=0.1,0.2 --limit 10

does what `evaluate(open_dataset("pocket").head(10), {"diffseg": (0.1, 0.2)}, out="runs/pocket-val.parquet")` does: it
encodes each image once, tries every method and setting on it, and keeps what the scores are made of in `out`, one
small file per image. `pandas.read_parquet(out)` is all of them.
"""

from .methods import ATTENTION, METHODS, Encoder, Method, Named, register
from .report import Report
from .results import Results
from .run import evaluate
from .tables import Tally

__all__ = ["ATTENTION", "METHODS", "Encoder", "Method", "Named", "Report", "Results", "Tally", "evaluate", "register"]
