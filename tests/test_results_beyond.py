"""How ideas since the paper are tuned and compared, on one small scene."""

import gc
import weakref
from dataclasses import replace

import pandas as pd
import pytest
import torch

from diffseg import DiffSegPipeline, pocket, results
from diffseg.plus import PLUS, Method
from diffseg.results import beyond

SIZE = 128  # pixels; 16 positions


@pytest.fixture(scope="module")
def view():
    return beyond.View(DiffSegPipeline.from_pretrained("pocket"), pocket.scene(900_000, SIZE).image)


@pytest.mark.parametrize("name", beyond.IDEAS)
def test_every_idea_gives_labels_without_gaps(name, view):
    idea = beyond.IDEAS[name]
    labels = idea.segment(view, idea.values[-1])(1.0)
    assert labels.shape == (SIZE, SIZE) and torch.equal(labels.unique(), torch.arange(len(labels.unique())))
    written = [beyond.describe(value) for value in idea.values]
    assert len(set(written)) == len(written), "the tables could not tell two values apart"


def test_a_view_is_let_go(view):
    mine = beyond.View(view.pipe, view.image)
    beyond.by_method(mine, Method())(1.0)
    seen = weakref.ref(mine)
    del mine
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("method", [Method(), Method(draws=2, exponent=1.0), Method(steps=2, rounds=5)])
def test_what_is_shared_changes_nothing(method, view):
    labels = beyond.by_method(view, method)(0.8)
    out = view.pipe(view.image, size=SIZE, threshold=0.8 * view.pipe.threshold, method=method)
    assert (labels == out.labels).float().mean() > 0.999


def test_the_choice_is_the_best_mean_of_accuracy_and_miou():
    rows = [
        ("walk", value, factor, accuracy, accuracy - 0.1)
        for value, scores in {"steps=2": (0.5, 0.7, 0.6), "steps=3": (0.6, 0.9, 0.8)}.items()
        for factor, accuracy in zip((0.1, 0.2, 0.4), scores, strict=True)
    ]
    rows.append(("walk", "steps=3", 0.2, 0.1, 0.0))  # best on one scene, not on the average of two
    rows.append(("cuts", "0.5", 1.0, 0.3, 0.2))
    tuned = pd.DataFrame(rows, columns=["idea", "value", "factor", "accuracy", "miou"])
    assert beyond.choose(tuned) == {"walk": ("steps=3", 0.4), "cuts": ("0.5", 1.0)}


def test_plus_is_what_the_table_chooses():
    value, factor = beyond.choose(results.load("beyond-tuning"))["combined"]
    assert (value, factor) == (beyond.describe(replace(PLUS, factor=1.0)), PLUS.factor)


def test_walks_are_tried_at_lower_thresholds():
    assert max(beyond.IDEAS["walk"].factors) < 1 < max(beyond.IDEAS["sizes"].factors)
