"""Draw the README's picture again: `python tools/readme_picture.py`, after the embedded model has changed."""

from pathlib import Path

from diffseg import DiffSegPipeline, image_score, plots, pocket

TARGET = Path(__file__).resolve().parent.parent / "docs" / "segmentation.png"
SEEDS = range(pocket.VALIDATION_SEED + 1, pocket.VALIDATION_SEED + 6)  # in a row, not chosen


def main() -> None:
    plots.style()
    pipe = DiffSegPipeline.from_pretrained("pocket")
    scenes = [pocket.scene(seed) for seed in SEEDS]
    found = [pipe(scene.image).labels for scene in scenes]
    palettes = [plots.match_colours(labels, scene.labels) for labels, scene in zip(found, scenes)]
    overlays = [plots.overlay(scene.image, labels, palette) for scene, labels, palette in zip(scenes, found, palettes)]
    truths = [plots.paint(scene.labels, plots.class_colours()) for scene in scenes]
    scores = [image_score(labels, scene.labels) for labels, scene in zip(found, scenes)]
    titles = [f"accuracy {accuracy:.0%}, mIoU {miou:.0%}" for accuracy, miou in scores]
    pictures = [scene.image for scene in scenes] + overlays + truths
    figure = plots.show_images(pictures, [""] * len(scenes) + titles + ["truth"] * len(scenes), columns=len(scenes))
    TARGET.parent.mkdir(exist_ok=True)
    figure.savefig(TARGET)


if __name__ == "__main__":
    main()
