"""The story of a training: snapshots measured as the pipeline would, going on after a stop; and its figure."""

import shutil
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from diffseg import SegmentationScore, image_score
from diffseg.figures.story import apart, show_story
from diffseg.models.paths import data_dir
from diffseg.pocket import TUNING_SEED, class_of, scene
from diffseg.pocket.training.__main__ import main
from diffseg.pocket.training.behaviour import Settings
from diffseg.pocket.training.look import Models
from diffseg.pocket.training.loop import OutOfTime, write_snapshot
from diffseg.pocket.training.recipes import Stage
from diffseg.pocket.training.story import story
from diffseg.pocket.training.text import build_text_encoder
from diffseg.pocket.training.unet import Denoiser, ProbedDenoiser, build_unet
from diffseg.sweeps import best_threshold, sweep_thresholds

STAGES = (Stage(256, 100, 70, 8), Stage(512, 100, 30, 4))
SETTINGS = Settings(thresholds=(0.0005, 0.005, 0.05), sides=(32, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the embedded pocket-sd, which lends autoencoder and tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(data_dir() / "models" / "pocket-sd", folder / "pocket-sd")
    return folder


@pytest.fixture(scope="module")
def told(folder, tmp_path_factory):
    """A story that was stopped once: its models, table, folder, and when the files were written before and after."""
    runs = tmp_path_factory.mktemp("runs")
    models = Models(folder)
    for seed, (stage, step) in enumerate((("unet-1-256", 50), ("unet-2-512", 30))):
        torch.manual_seed(seed)
        (runs / stage).mkdir()
        denoiser = Denoiser(build_unet(), build_text_encoder(models.pipe.tokenizer))
        write_snapshot(runs / stage, step, ProbedDenoiser(denoiser))
    models.pipe.points = 4
    with pytest.raises(OutOfTime, match="1 of 2 snapshots are measured"):
        story(models, STAGES, runs, SETTINGS, scenes=1, deadline=0.0)
    half = pd.read_csv(folder / "pocket-sd" / "grouping.csv")
    times = {file: file.stat().st_mtime_ns for file in runs.glob("story-*.csv")}
    table = story(models, STAGES, runs, SETTINGS, scenes=1)
    return models, table, half, runs, times


@pytest.mark.slow
def test_each_snapshot_has_all_parts_and_its_samples(told, folder):
    _, table, half, _, _ = told
    assert table.part.tolist() == ["all", "32", "8", "words"] * 2
    assert table.stage.tolist() == ["unet-1-256"] * 4 + ["unet-2-512"] * 4
    assert table.step.tolist() == [50] * 4 + [30] * 4
    assert table.samples.tolist() == [50 * 8] * 4 + [50 * 8 + 30 * 4] * 4
    assert table.miou.between(0, 1).all()
    written = pd.read_csv(folder / "pocket-sd" / "grouping.csv")
    pd.testing.assert_frame_equal(written, table, atol=1e-4, rtol=0)
    pd.testing.assert_frame_equal(half, written[:4])


@pytest.mark.slow
def test_what_was_measured_before_a_stop_is_not_measured_again(told):
    _, _, _, runs, times = told
    assert len(times) == 1 and len(list(runs.glob("story-*.csv"))) == 2
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())


@pytest.mark.slow
def test_scores_are_those_of_a_pipeline_with_the_weights(told):
    """The models hold the last snapshot: half precision, computed in single; DiffSeg by hand from there."""
    models, table, _, runs, _ = told
    pipe, drawn = models.pipe, scene(TUNING_SEED)
    weights = safetensors.torch.load_file(runs / "unet-2-512" / "snapshot-000030.safetensors")
    for name, part in (("unet", pipe.unet), ("text_encoder", pipe.text_encoder)):
        for key, value in part.state_dict().items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, weights[f"denoiser.{name}.{key}"].float(), rtol=0, atol=0)
    found = table[table.stage == "unet-2-512"].set_index("part").miou

    scores = sweep_thresholds(pipe, [(drawn.image, drawn.labels)], SETTINGS.thresholds)
    best = best_threshold(scores)
    assert found["all"] == scores.miou[scores.threshold == best].item()

    attention = pipe.attend(drawn.image, weights={8: 1})
    tried = pd.DataFrame(
        [
            (t, *image_score(pipe.segment(attention, 4, threshold=t, size=512).labels, drawn.labels))
            for t in SETTINGS.thresholds
        ],
        columns=["threshold", "accuracy", "miou"],
    )
    assert found["8"] == tried.miou[tried.threshold == best_threshold(tried)].item()

    named, score = pipe(drawn.image, words=drawn.nouns, threshold=best), SegmentationScore()
    score.update_named(named.labels, drawn.labels, [class_of(word) for word in named.words])
    assert found["words"] == pytest.approx(score.compute().miou)


def test_a_training_without_snapshots_has_no_story(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no snapshots, such as unet-1-256/snapshot-000050"):
        story(Models(tmp_path), STAGES, tmp_path)
    with pytest.raises(FileNotFoundError, match="Train first"):
        main(["story", "--runs", str(tmp_path), "--models", str(tmp_path), "--device", "cpu"])


# ---- the figure -----------------------------------------------------------------------------------------------------


@pytest.fixture
def grouping():
    """Two stages, all parts, in an order that is not theirs."""
    ends = {"8": 0.4, "words": 0.41, "64": 0.7, "all": 0.8, "16": 0.42, "32": 0.69}
    rows = [
        (stage, samples, part, end * samples / 700)
        for part, end in ends.items()
        for stage, samples in (("unet-1-256", 400), ("unet-1-256", 200), ("unet-2-512", 700), ("unet-2-512", 500))
    ]
    return pd.DataFrame(rows, columns=["stage", "samples", "part", "miou"])


def test_each_part_has_a_line_and_its_name_at_the_end(grouping):
    figure = show_story(grouping)
    (ax,) = figure.axes
    assert not plt.get_fignums() and ax.get_xscale() == "log"
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["64x64", "32x32", "16x16", "8x8", "all layers", "words"]
    for line in lines.values():
        assert list(line.get_xdata()) == [200, 400, 500, 700]
    assert lines["8x8"].get_ydata() == pytest.approx([0.4 * samples / 700 for samples in (200, 400, 500, 700)])
    labels = {text.get_text(): text for text in ax.texts if text.get_text() in lines}
    assert labels.keys() == lines.keys()
    for name, text in labels.items():
        assert text.get_color() == lines[name].get_color()
        assert abs(text.get_position()[1] - lines[name].get_ydata()[-1]) < 0.1
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in labels.values()), key=lambda box: box.y0)
    assert all(upper.y0 - lower.y0 > 0.75 * lower.height for lower, upper in pairwise(boxes))


def test_the_next_stage_is_marked_where_it_begins(grouping):
    (ax,) = show_story(grouping).axes
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [400]
    assert [text.get_text().split()[0] for text in ax.texts if "unet" in text.get_text()] == ["unet-2-512"]
    alone = grouping[grouping.stage == "unet-1-256"]
    assert not [line for line in show_story(alone).axes[0].lines if line.get_linestyle() == ":"]


def test_a_story_from_its_file_and_of_some_parts_is_drawn(grouping, tmp_path):
    sides = grouping[grouping.part.isin(["8", "64"])]
    sides.to_csv(tmp_path / "grouping.csv", index=False)
    read = pd.read_csv(tmp_path / "grouping.csv")  # without "all" the parts are numbers there
    assert [line.get_label() for line in show_story(read).axes[0].lines[:2]] == ["64x64", "8x8"]
    with pytest.raises(ValueError, match="grouping is empty"):
        show_story(grouping[:0])


def test_heights_are_moved_as_little_as_possible():
    assert apart(np.array([0.5, 0.1, 0.9]), 0.1) == pytest.approx([0.5, 0.1, 0.9])
    assert apart(np.array([0.5, 0.5]), 0.1) == pytest.approx([0.45, 0.55])
    assert apart(np.array([0.3, 0.52, 0.5, 0.48]), 0.1) == pytest.approx([0.3, 0.6, 0.5, 0.4])
