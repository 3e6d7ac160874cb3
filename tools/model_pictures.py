"""Draw the pictures of README and model page again: `python tools/model_pictures.py`, after the model has changed."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from diffseg import DiffSegPipeline, anchor_grid, pocket
from diffseg.figures import animate, plots
from diffseg.merging import groups_of_passes, merge_passes
from diffseg.models.paths import data_dir
from diffseg.sweeps import best_threshold

DOCS = Path(__file__).resolve().parent.parent / "docs"
SEEDS = range(pocket.VALIDATION_SEED + 1, pocket.VALIDATION_SEED + 6)  # in a row, not chosen
SMOOTH = 20  # entries of the log, 200 steps


def results() -> Figure:
    """Some validation scenes: what goes in, what comes out, the truth."""
    pipe = DiffSegPipeline.from_pretrained("pocket")
    scenes = [pocket.scene(seed) for seed in SEEDS]
    found = [pipe(scene.image).labels for scene in scenes]
    truths = [scene.labels for scene in scenes]
    return plots.show_results([scene.image for scene in scenes], found, truths, rows=("image", "overlay", "truth"))


def film() -> bytes:
    """The merging of the first of these scenes, as a moving picture."""
    pipe = DiffSegPipeline.from_pretrained("pocket")
    image = pocket.scene(SEEDS[0]).image
    passes = merge_passes(pipe(image).attention, threshold=pipe.threshold)
    groups = groups_of_passes(passes, pipe.threshold)
    return animate.merging_film(image, anchor_grid(), passes, groups, frames=16).data


def training(folder: Path) -> Figure:
    """The UNet's loss over minutes of training, and the scores over thresholds on the tuning scenes."""
    log = pd.read_csv(folder / "training.csv").query("stage.str.startswith('unet')").reset_index(drop=True)
    log["round"] = (log.step.diff() < 0).cumsum()  # the step begins anew
    tuning = pd.read_csv(folder / "tuning.csv", index_col="threshold")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.2))
    minutes = 0.0
    for _, part in log.groupby("round"):
        number, size = part.stage.iloc[0].removeprefix("unet-").split("-")
        left.plot(
            minutes + part.seconds / 60,
            part.loss.rolling(SMOOTH, min_periods=5).mean(),
            label=f"stage {number}, {size} pixels",
        )
        minutes += part.seconds.iloc[-1] / 60
    left.set(xlabel="minutes of training on a GPU", ylabel="loss", yscale="log", title="training of the UNet")
    left.set_yticks(ticks := [0.5, 1, 2], [f"{tick:g}" for tick in ticks])
    left.minorticks_off()
    left.legend()
    for name, label in {"accuracy": "accuracy", "miou": "mIoU"}.items():
        right.plot(tuning.index, tuning[name], ".-", label=label)
    right.axvline(best_threshold(tuning.reset_index()), color="0.5", ls="--", label="chosen")
    right.set(xlabel="merging threshold, nats", xscale="log", ylim=(0, 1), title="mean scores on tuning scenes")
    right.set_xticks(ticks := [0.02, 0.05, 0.1, 0.2, 0.5, 1, 3], [f"{tick:g}" for tick in ticks])
    right.minorticks_off()
    right.legend()
    return figure


def main() -> None:
    plots.style()
    DOCS.mkdir(exist_ok=True)
    results().savefig(DOCS / "segmentation.png")
    (DOCS / "merging.png").write_bytes(film())
    training(data_dir() / "models" / "pocket-sd").savefig(DOCS / "training.png")


if __name__ == "__main__":
    main()
