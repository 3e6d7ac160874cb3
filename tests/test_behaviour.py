"""Measuring the miniature: settings from tuning scenes, a table with targets, runs that go on where they stopped."""

import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_models import tiny_components
from PIL import Image
from scipy import stats

from diffseg import DiffSegPipeline, SegmentationScore, image_score
from diffseg.attention import RecordedLayer
from diffseg.heads import head_divergence
from diffseg.masks import relabel, suppress
from diffseg.merging import merge
from diffseg.models.settings import Settings as ModelSettings
from diffseg.models.settings import write_settings
from diffseg.pocket import TUNING_SEED, VALIDATION_SEED, scene
from diffseg.pocket.catalogue import CLASSES, THING_BY_NAME, class_of
from diffseg.pocket.training import behaviour as behaviour_module
from diffseg.pocket.training import look
from diffseg.pocket.training.__main__ import main
from diffseg.pocket.training.behaviour import GROUPS, Settings, behaviour
from diffseg.pocket.training.look import Look, Models
from diffseg.pocket.training.loop import OutOfTime
from diffseg.pocket.training.measuring import (
    Group,
    Line,
    Measured,
    Store,
    Target,
    Way,
    mean_line,
    measure_groups,
    pooled_line,
    share_line,
)
from diffseg.semantics import find_nouns
from diffseg.sweeps import bootstrap_interval, mean_interval

SCENES = 2
SETTINGS = Settings(thresholds=(0.1, 0.4, 1.5), eps=(0.05, 0.2), sides=(16, 8), timesteps=(1, 300), steps=2)
ROWS = [
    "DiffSeg: accuracy",
    "DiffSeg: mIoU",
    "K-Means on colours: mIoU",
    "DiffSeg minus K-Means on colours: mIoU",
    "DBSCAN: mIoU",
    "K-Means-S: mIoU",
    "DiffSeg minus DBSCAN: mIoU",
    "DiffSeg minus K-Means-S: mIoU",
    "16x16 alone: mIoU",
    "8x8 alone: mIoU",
    "all layers minus 16x16 alone: mIoU",
    "t = 1: mIoU",
    "t = 300: mIoU",
    "best t on the tuning scenes",
    "t = ... minus t = 1: mIoU",
    "DinoSeg: accuracy",
    "DinoSeg: mIoU",
    "DiffSeg minus DinoSeg: mIoU",
    "heads / threshold, median of layers",
    "heads / two classes in a head, median of layers",
    "words, true nouns: pooled mIoU",
    "words, own caption: pooled mIoU",
    "captions: visible things named",
    "captions: named things absent",
    "paintings: nouns of the prompt named",
]


class Stop(Exception):
    """An interruption from outside."""


class ByColour:
    """A pipeline whose attention is the likeness of colours; it counts its work and can break off."""

    device, points = torch.device("cpu"), 4

    def __init__(self, calls, stop_at):
        self.calls, self.stop_at = calls, stop_at

    def record(self, image, timestep=300, heads="mean"):
        self.calls["record"] += 1
        return [self._layer(image, side, 200 / (1 + timestep / 1000), heads) for side in (16, 8)]

    def _layer(self, image, side, sharpness, heads):
        colours = torch.from_numpy(np.asarray(image.resize((side, side)), np.float32) / 255).flatten(0, 1)
        scores = -torch.cdist(colours, colours).square() * sharpness
        probs = torch.stack([scores.softmax(dim=-1), (1.2 * scores).softmax(dim=-1)])
        return RecordedLayer(f"layer {side}", "self", "down", 2, side, probs if heads == "all" else probs.mean(dim=0))

    def segment(self, attention, points, threshold, size, distances):
        if self.calls["segment"] == self.stop_at:
            raise Stop
        self.calls["segment"] += 1
        proposals = merge(attention, points, 2, threshold, distances=distances)
        return SimpleNamespace(labels=relabel(suppress(proposals, size))[0])

    def __call__(self, image, words, threshold):
        self.calls["words"] += 1
        nouns = words if isinstance(words, tuple) else ("sky", "toad")
        rows = torch.arange(image.height)[:, None] * len(nouns) // image.height
        return SimpleNamespace(labels=rows.expand(image.height, image.width), words=nouns)


def write_models(folder):
    """What stands for the models' files."""
    for name in ("pocket-sd", "pocket-blip", "pocket-dino"):
        (folder / name / "part").mkdir(parents=True)
        (folder / name / "part" / "model.safetensors").write_bytes(name.encode())
        write_settings(folder / name, ModelSettings(0.4))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_models(tmp_path / "models")


def quick_models(folder, stop_at=None):
    """Models that cost next to nothing, and how often each was called."""
    models, calls = Models(folder), Counter()
    halves = torch.arange(512).expand(512, 512) // 256

    def count(name, result):
        def call(*args, **kwargs):
            calls[name] += 1
            return result

        return call

    vars(models).update(
        pipe=ByColour(calls, stop_at),
        dino=count("dino", SimpleNamespace(labels=halves)),
        captioner=count("captioner", "A red car and a dog on the grass under the sky"),
        painter=count("painter", SimpleNamespace(images=[Image.new("RGB", (8, 8))])),
    )
    return models, calls


def measure(folder, runs, stop_at=None, settings=SETTINGS, **options):
    """The table, and what it took."""
    models, calls = quick_models(folder, stop_at)
    return behaviour(models, settings, SCENES, runs, **options), calls


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All groups without an interruption: the table, the calls, and the folder of files."""
    runs = tmp_path_factory.mktemp("runs")
    return *measure(write_models(tmp_path_factory.mktemp("models")), runs), runs


@pytest.fixture
def runs(whole, tmp_path):
    """A copy of those files."""
    return shutil.copytree(whole[2], tmp_path / "runs")


# ---- the table ------------------------------------------------------------------------------------------------------


def test_table_has_every_row(whole):
    table, _, runs = whole
    best = table["mean"][table.row == "best t on the tuning scenes"].item()
    assert table.row.tolist() == [row.replace("...", f"{best:g}") for row in ROWS]
    assert list(table.columns) == ["row", "mean", "low", "high", "target", "reached"]
    assert ((table.reached != "") == (table.target != "")).all()
    intervals = table[table.row != "best t on the tuning scenes"]
    assert (intervals.low <= intervals["mean"]).all() and (intervals["mean"] <= intervals.high).all()
    written = pd.read_csv(runs / "behaviour.csv", keep_default_na=False)
    assert written.row.tolist() == table.row.tolist() and written.reached.tolist() == table.reached.tolist()


@pytest.mark.parametrize("names", [["layers"], ["heads", "dino"]])
def test_some_groups_alone_have_the_same_rows(whole, folder, tmp_path, names):
    part, _ = measure(folder, tmp_path, names=names)
    expected = whole[0][whole[0].row.isin(part.row)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected, check_exact=True)
    assert len(list(tmp_path.glob("behaviour-*.csv"))) == len(names)


def test_passes_are_shared(whole):
    """One pass for each scene and timestep, and one with the heads apart; each attention at each threshold once."""
    calls = whole[1]
    assert calls["record"] == 2 * SCENES + 3 * SCENES
    tried = 3 * (1 + len(SETTINGS.sides) + len(SETTINGS.timesteps) - 1)  # "all layers" is t = 300
    assert SCENES * tried < calls["segment"] <= SCENES * (tried + 1 + 4)
    assert calls["dino"] == SCENES


@pytest.mark.parametrize(
    ("target", "mean", "low", "reached"),
    [
        (Target(0.8), 0.8, -1.0, True),
        (Target(0.8), 0.79, 0.7, False),
        (Target(at_most=0.5), 0.5, 0.4, True),
        (Target(at_most=0.5), 0.51, 0.4, False),
        (Target(100.0, 400.0), 300.0, np.nan, True),
        (Target(100.0, 400.0), 1.0, np.nan, False),
        (Target(100.0, 400.0), 500.0, np.nan, False),
        (Target(above_zero=True), 0.01, 0.001, True),
        (Target(above_zero=True), 0.01, -0.001, False),
        (Target(above_zero=True), 0.0, 0.0, False),
        (Target(0.05, above_zero=True), 0.04, 0.03, False),
        (Target(0.05, above_zero=True), 0.06, -0.01, False),
        (Target(0.05, above_zero=True), 0.06, 0.01, True),
        (Target(0.5), np.nan, np.nan, False),
        (Target(above_zero=True), 0.5, np.nan, False),
    ],
)
def test_targets(target, mean, low, reached):
    assert target.is_reached(mean, low) == reached
    assert Line("", mean, low, target=target).reached == ("yes" if reached else "no")


def test_targets_in_words():
    assert str(Target(0.05, above_zero=True)) == "at least 0.05, interval above 0"
    assert str(Target(100.0, 400.0)) == "at least 100, at most 400"
    assert Line("", 0.5).reached == ""


# ---- intervals ------------------------------------------------------------------------------------------------------


def test_paired_interval_is_that_of_a_t_test():
    rng = np.random.default_rng(0)
    hard = rng.normal(0.6, 0.2, 30)
    first, second = hard + rng.normal(0.05, 0.02, 30), hard
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    line = mean_line("gain", pd.Series(first) - pd.Series(second))
    assert (line.low, line.high) == pytest.approx((expected.low, expected.high))
    assert line.mean == pytest.approx(np.mean(first) - np.mean(second))
    assert mean_interval(pd.Series(first), 0.5)[1:] == pytest.approx(
        stats.ttest_1samp(first, 0).confidence_interval(0.5)
    )


def test_bootstrap_agrees_with_another_one():
    rng = np.random.default_rng(1)
    counts = np.stack([part := rng.integers(0, 5, 60), part + rng.integers(0, 3, 60)], axis=1)
    low, high = bootstrap_interval(counts, lambda scenes: scenes[:, 0].sum() / scenes[:, 1].sum())
    expected = stats.bootstrap(
        (counts[:, 0], counts[:, 1]),
        lambda part, whole, axis: part.sum(axis) / whole.sum(axis),
        paired=True,
        method="percentile",
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)
    line = share_line("share", pd.Series(counts[:, 0]), pd.Series(counts[:, 1]))
    assert (line.mean, line.low, line.high) == (counts[:, 0].sum() / counts[:, 1].sum(), low, high)


def test_same_draws_every_time():
    counts = np.random.default_rng(2).random((9, 3, 2))
    assert pooled_line("x", counts, np.mean) == pooled_line("x", counts, np.mean)


# ---- choosing -------------------------------------------------------------------------------------------------------


def test_settings_are_chosen_on_tuning_scenes_only(tmp_path):
    """The best setting of the tuning scenes is the worst of the validation scenes, and still the only one they see."""
    seen = []

    def score(seed, setting):
        seen.append((seed, setting))
        likes = 0.1 if seed < VALIDATION_SEED else 0.4
        value = 1 - abs(setting - likes)
        return [{"accuracy": value, "miou": value}]

    group = Group({"way": Way(score, (0.1, 0.15, 0.2, 0.4))}, lambda m: [mean_line("way", m.scores()["way"])], ())
    table = measure_groups({"group": group}, {"group": Store(tmp_path / "group.csv")}, lambda seed: seed, 3)
    tuning = [(TUNING_SEED + index, setting) for index in range(3) for setting in (0.1, 0.15, 0.2, 0.4)]
    assert seen == [*tuning, *((VALIDATION_SEED + index, 0.1) for index in range(3))]
    assert table["mean"].item() == pytest.approx(1 - 0.3)


def test_best_timestep_is_that_of_the_tuning_scenes():
    group = GROUPS["timesteps"](Models(Path()), SETTINGS)
    rows = pd.DataFrame(
        [(seed, f"t = {t}", miou) for seed in range(3) for t, miou in ((1, 0.2 + 0.1 * seed), (300, 0.4))],
        columns=["seed", "way", "miou"],
    )
    swapped = rows.assign(miou=1 - rows.miou)
    for tuning, best in ((rows, 300), (swapped, 1)):
        *_, chosen, difference = group.judge(Measured(tuning, rows))
        assert chosen.mean == best and difference.row == f"t = {best} minus t = 1: mIoU"
        assert difference.mean == pytest.approx(0.1 if best == 300 else 0)


# ---- resuming -------------------------------------------------------------------------------------------------------


def test_interrupted_and_resumed_equals_uninterrupted(whole, folder, tmp_path):
    for stop_at in (3, 17, 15):  # in the first tuning scene, the second, and the first validation scene
        with pytest.raises(Stop):
            measure(folder, tmp_path, stop_at)
    table, _ = measure(folder, tmp_path)
    pd.testing.assert_frame_equal(table, whole[0], check_exact=True)


def test_nothing_is_computed_twice(whole, folder, tmp_path):
    """A run that stops after every scene makes the same calls as one that does not; another one makes none."""
    made = Counter()
    for _ in range(SCENES):
        models, calls = quick_models(folder)
        with pytest.raises(OutOfTime, match="are measured"):
            behaviour(models, SETTINGS, SCENES, tmp_path, deadline=0.0)
        made += calls
    table, calls = measure(folder, tmp_path, deadline=0.0)
    assert made + calls == whole[1]
    again, calls = measure(folder, tmp_path)
    assert not calls
    for each in (table, again):
        pd.testing.assert_frame_equal(each, whole[0], check_exact=True)


def test_more_scenes_go_on_from_those_that_are_there(whole, folder, tmp_path):
    models, first = quick_models(folder)
    behaviour(models, SETTINGS, 1, tmp_path, ["dino", "captions"])
    table, more = measure(folder, tmp_path, names=["dino", "captions"])
    assert first == more == {"record": 1, "segment": 1, "dino": 1, "captioner": 1}
    expected = whole[0][whole[0].row.isin(table.row)].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, expected, check_exact=True)


def test_other_weights_start_anew(folder, runs):
    (folder / "pocket-blip" / "part" / "model.safetensors").write_bytes(b"trained on")
    _, calls = measure(folder, runs)
    assert calls == {"words": 2 * SCENES, "captioner": 2 * SCENES, "painter": SCENES}  # all that it has to do with


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, {}),
        ({"guidance": 7.0}, {"painter": SCENES, "captioner": SCENES}),
        ({"steps": 3}, {"painter": SCENES, "captioner": SCENES}),
        ({"timesteps": (1, 300, 100)}, {"record": 2 * SCENES, "segment": 4 * SCENES}),  # three tried, one chosen
    ],
)
def test_other_settings_measure_what_depends_on_them(folder, runs, changes, calls):
    assert measure(folder, runs, settings=replace(SETTINGS, **changes))[1] == calls


def test_another_world_starts_anew(whole, folder, runs, monkeypatch):
    names = ["masks", "dino"]
    rich, none = measure(folder, runs, names=names)
    for module in (behaviour_module, look):
        monkeypatch.setattr(module, "scene", partial(scene, rich=False))
    flat, calls = measure(folder, runs, names=names)
    assert calls == {"record": SCENES, "segment": SCENES, "dino": SCENES} and not none
    assert not rich["mean"].equals(flat["mean"])


def test_another_threshold_of_the_model_measures_its_own_rows_again(folder, runs):
    write_settings(folder / "pocket-sd", ModelSettings(0.3))
    _, calls = measure(folder, runs)
    assert calls == {"record": SCENES, "segment": SCENES, "words": 2 * SCENES}


def test_files_are_whole_after_an_interruption(tmp_path):
    """Numbers come back as they were, to the last bit, and what was not complete is not there."""
    store = Store(tmp_path / "runs" / "group.csv")
    value = float(np.nextafter(1 / 3, 1))
    store.add(5, {("way", 0.1): [{"miou": value}, {"miou": float("nan")}], ("64", 0.0): [{"miou": 1.0}]})
    again = Store(store.file)
    assert again.missing(5, [("way", 0.1), ("way", 0.2), ("64", 0.0)]) == [("way", 0.2)]
    assert again.missing(6, [("way", 0.1)]) == [("way", 0.1)]
    rows = again.select(range(5, 7), [("64", 0.0), ("way", 0.1)])
    assert rows.way.tolist() == ["64", "way", "way"] and rows.miou[1] == value and np.isnan(rows.miou[2])
    assert [file.name for file in store.file.parent.iterdir()] == ["group.csv"]
    assert again.select(range(5, 7), []).empty


# ---- what is measured -----------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_pipeline(tmp_path):
    """Through the shared pass, and straight."""
    pipe, models = DiffSegPipeline(**tiny_components(tmp_path)), Models(tmp_path)
    vars(models).update(pipe=pipe)
    look, drawn = Look(models, TUNING_SEED), scene(TUNING_SEED)
    side = pipe.record(drawn.image)[-1].size
    pipe.points = 4
    for options, weights in (({}, "layer"), ({"side": side}, {side: 1}), ({"timestep": 7}, "layer")):
        attention = pipe.attend(drawn.image, timestep=options.get("timestep", 300), weights=weights)
        out = pipe.segment(attention, 4, threshold=0.001, size=512)
        (row,) = look.diffseg(0.001, **options)
        assert (row["accuracy"], row["miou"]) == image_score(out.labels, drawn.labels)


def test_words_are_pooled_over_scenes(folder, tmp_path):
    """As a score over all pixels would count, names that are no class included."""
    models, _ = quick_models(folder)
    table = behaviour(models, SETTINGS, 3, tmp_path, ["words"])
    for row, own_caption in (("words, true nouns: pooled mIoU", False), ("words, own caption: pooled mIoU", True)):
        score = SegmentationScore()
        for seed in range(VALIDATION_SEED, VALIDATION_SEED + 3):
            drawn = scene(seed)
            out = models.pipe(drawn.image, "caption" if own_caption else drawn.nouns, 0.4)
            score.update_named(out.labels, drawn.labels, [class_of(word) for word in out.words])
        assert table["mean"][table.row == row].item() == pytest.approx(score.compute().miou)


def test_things_of_captions_and_nouns_of_paintings(folder, tmp_path):
    models, _ = quick_models(folder)
    table = behaviour(models, SETTINGS, 4, tmp_path, ["captions", "paintings"]).set_index("row")["mean"]
    drawn = [scene(VALIDATION_SEED + index) for index in range(4)]
    things = [set(one.nouns) & THING_BY_NAME.keys() for one in drawn]
    named = sum(len(each & {"car", "dog"}) for each in things)
    assert table["captions: visible things named"] == named / sum(map(len, things))
    assert table["captions: named things absent"] == 1 - named / 8
    prompts = [{CLASSES[class_of(noun.word)] for noun in find_nouns(one.caption)} for one in drawn]
    found = sum(len(each & {"car", "dog", "grass", "sky"}) for each in prompts)
    assert table["paintings: nouns of the prompt named"] == found / sum(map(len, prompts))


def test_heads_are_measured_by_threshold_and_by_classes(folder, tmp_path):
    models, _ = quick_models(folder)
    table = behaviour(models, SETTINGS, 2, tmp_path, ["heads"]).set_index("row")["mean"]
    ratios = []
    for seed in range(VALIDATION_SEED, VALIDATION_SEED + 2):
        layers = models.pipe.record(scene(seed).image, heads="all")
        ratios.append(np.median([head_divergence(layer.probs) / 0.4 for layer in layers]))
    assert table["heads / threshold, median of layers"] == pytest.approx(np.mean(ratios))


def test_command_prints_the_table(tmp_path, capsys):
    """With the captioner in the box, on one scene."""
    main(["behaviour", "--rows", "captions", "--scenes", "1", "--runs", str(tmp_path), "--device", "cpu"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["row", "mean", "low", "high", "target", "reached"]
    assert [" ".join(line.split()[:4]) for line in lines] == [
        "captions: visible things named",
        "captions: named things absent",
    ]
    assert (tmp_path / "behaviour.csv").exists()
