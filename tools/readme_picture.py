"""Draw the README's picture again: `python tools/readme_picture.py`, after the embedded model has changed."""

from pathlib import Path

from diffseg import DiffSegPipeline, plots, pocket

TARGET = Path(__file__).resolve().parent.parent / "docs" / "segmentation.png"
SEEDS = range(pocket.VALIDATION_SEED + 1, pocket.VALIDATION_SEED + 6)  # in a row, not chosen


def main() -> None:
    plots.style()
    pipe = DiffSegPipeline.from_pretrained("pocket")
    scenes = [pocket.scene(seed) for seed in SEEDS]
    found = [pipe(scene.image).labels for scene in scenes]
    truths = [scene.labels for scene in scenes]
    figure = plots.show_results([scene.image for scene in scenes], found, truths, rows=("image", "overlay", "truth"))
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET)


if __name__ == "__main__":
    main()
