"""Tables of scores against scikit-learn, SciPy's bootstrap, and loops over images that are written out."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import bootstrap
from sklearn.metrics import confusion_matrix, jaccard_score
from transformers import AutoModel

from diffseg import DiffSegPipeline, SegmentationScore
from diffseg.datasets import Dataset, open_dataset
from diffseg.dino import DinoSegPipeline
from diffseg.evaluate import Named, Report, evaluate
from diffseg.evaluate.counting import DATASET, NAMED, make_row, schema
from diffseg.evaluate.features import describe, group, patch_features
from diffseg.evaluate.tables import DRAWS, SIZES, draw, interval, statistics
from diffseg.images import read_image
from diffseg.metrics import POLICIES, PROTOCOLS, image_score, match_segments
from diffseg.models.paths import resolve_model
from diffseg.pocket import class_of

CLASSES = 5
NAMES = ("sky", "car", "wall", "road", "tree")


def report_of(rows, protocols=PROTOCOLS, **options):
    """A report of rows, as they come back from the disk."""
    frame = pa.Table.from_pylist(rows, schema=schema()).to_pandas()
    keys = list(dict.fromkeys((row["method"], row["setting"]) for row in rows))
    return Report(frame, Dataset("made up", "val", NAMES, ()), keys, protocols, {}, {}, **options)


@pytest.fixture
def cases():
    """Label maps of ten images, with something in common with their truths."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(10):
        truth = np.kron(rng.choice([*range(CLASSES), 255], (3, 3), p=[0.2] * 4 + [0.15, 0.05]), np.ones((4, 4), int))
        labels = np.where(rng.random(truth.shape) < rng.uniform(0.5, 0.9), truth % 7, rng.integers(0, 7, truth.shape))
        found.append((labels, truth))
    return found


def rows_of(cases, method="m", **options):
    return [make_row(str(i), (method, None), *case, CLASSES, **options) for i, case in enumerate(cases)]


def drawn_scores(cases, protocol):
    """Accuracy and mIoU of each data set that is drawn from the images, one after the other."""
    alone = [SegmentationScore(CLASSES, protocol) for _ in cases]
    for score, case in zip(alone, cases):
        score.update(*case)
    found = []
    for counts in draw(len(cases)):
        whole = SegmentationScore(CLASSES, protocol)
        for score, count in zip(alone, counts):
            whole.hits += count * score.hits
            whole.predicted += count * score.predicted
            whole.actual += count * score.actual
        found.append((whole.compute().accuracy, whole.compute().miou))
    return np.array(found)


class TestIntervals:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_are_quantiles_over_drawn_data_sets(self, cases, protocol):
        row = report_of(rows_of(cases)).scores.set_index("protocol").loc[protocol]
        found = drawn_scores(cases, protocol)
        for name, values in zip(("accuracy", "miou"), np.transpose(found)):
            low, high = np.quantile(values, [0.025, 0.975])
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high))
            assert low < row[name] < high

    def test_are_those_of_scipy_for_a_plain_mean(self):
        rng = np.random.default_rng(1)
        rights = rng.integers(5, 26, 40)  # of 25 pixels in each image, all of one class
        cases = [((np.arange(25) >= right).astype(int).reshape(5, 5), np.zeros((5, 5), int)) for right in rights]
        rights = np.maximum(rights, 25 - rights)  # the larger part is matched
        row = report_of(rows_of(cases)).scores.iloc[0]
        theirs = bootstrap((rights / 25,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
        assert row.accuracy == pytest.approx((rights / 25).mean())
        width = theirs.high - theirs.low
        assert row.accuracy_low == pytest.approx(theirs.low, abs=0.06 * width)
        assert row.accuracy_high == pytest.approx(theirs.high, abs=0.06 * width)

    def test_draws_are_of_as_many_images_and_always_the_same(self):
        assert draw(7).shape == (DRAWS, 7) and (draw(7).sum(axis=1) == 7).all()
        assert np.array_equal(draw(7), draw(7)) and not np.array_equal(draw(7), draw(7, seed=1))
        assert draw(50).mean(axis=0) == pytest.approx(np.ones(50), abs=0.2)

    def test_one_image_has_no_width_and_none_no_interval(self, cases):
        row = report_of(rows_of(cases[:1])).scores.iloc[0]
        assert row.miou_low == row.miou == row.miou_high
        assert np.isnan(interval(np.array([np.nan]))).all()


class TestComparing:
    def test_differences_are_taken_on_the_same_draws(self, cases):
        rng = np.random.default_rng(3)
        worse = [(rng.permuted(labels, axis=1), truth) for labels, truth in cases]
        report = report_of(rows_of(cases, "good") + rows_of(worse, "bad"))
        table = report.compare("good", "bad").set_index(["protocol", "score"])
        mious = {name: drawn_scores(those, "clean")[:, 1] for name, those in (("good", cases), ("bad", worse))}
        low, high = np.quantile(mious["good"] - mious["bad"], [0.025, 0.975])
        row = table.loc["clean", "miou"]
        assert (row.low, row.high) == pytest.approx((low, high)) and row.clear
        scores = report.scores.set_index(["method", "protocol"]).miou
        assert row.difference == pytest.approx(scores["good", "clean"] - scores["bad", "clean"])
        back = report.compare("bad", "good").set_index(["protocol", "score"])
        assert back.difference.to_dict() == pytest.approx((-table.difference).to_dict())

    def test_a_method_is_no_better_than_itself(self, cases):
        table = report_of(rows_of(cases, "one") + rows_of(cases, "two")).compare("one", "two")
        assert (table[["difference", "low", "high"]] == 0).all(axis=None) and not table.clear.any()
        assert set(table.score) == {"accuracy", "miou", "boundary"} and set(table.protocol) == set(PROTOCOLS)

    def test_only_images_that_both_have_count(self, cases):
        report = report_of(rows_of(cases, "one") + rows_of(cases[:4], "two"))
        assert (report.compare("one", "two").images == 4).all()
        assert (report.compare("one", "two").difference == 0).all()

    def test_names(self, cases):
        report = report_of(rows_of(cases, "one"))
        with pytest.raises(ValueError, match="'three' must name one method with one setting, of one."):
            report.compare("one", "three")
        named = [make_row(str(i), ("named", None), Named(case[0], ["sky"] * 7), case[1], CLASSES, {"sky": 0})
                 for i, case in enumerate(cases)]  # fmt: skip
        with pytest.raises(ValueError, match="have no protocol in common"):
            report_of(rows_of(cases, "one") + named).compare("one", "named")


class TestTables:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_classes(self, cases, protocol):
        table = report_of(rows_of(cases)).classes.query("protocol == @protocol").set_index("class")
        said, known = [], []
        for labels, truth in cases:
            matched = match_segments(labels, truth, CLASSES, protocol=protocol)[labels]
            said.append(matched[truth != 255])
            known.append(truth[truth != 255])
        said, known = np.concatenate(said), np.concatenate(known)
        iou = jaccard_score(known, said, labels=range(CLASSES), average=None, zero_division=0)
        assert table.iou.tolist() == pytest.approx(iou.tolist(), nan_ok=True)
        assert table.share.tolist() == pytest.approx((np.bincount(known, minlength=CLASSES) / len(known)).tolist())
        assert table.images.tolist() == [sum((truth == index).any() for _, truth in cases) for index in range(CLASSES)]
        assert list(table.index) == list(NAMES)

    def test_a_class_that_never_occurs(self):
        case = np.zeros((4, 4), int), np.zeros((4, 4), int)
        table = report_of(rows_of([case])).classes.query("protocol == 'clean'")
        assert table.iou.tolist() == pytest.approx([1, *[np.nan] * 4], nan_ok=True)
        assert table.images.tolist() == [1, 0, 0, 0, 0]

    def test_sizes(self):
        """A dot of 4, a bar of 480 and the rest of 64 x 64 pixels, of which the bar is found by half."""
        truth = np.zeros((64, 64), int)
        truth[:2, :2], truth[20:28, :60] = 1, 2
        labels = truth.copy()
        labels[20:24, :60] = 0
        table = report_of(rows_of([(labels, truth)])).sizes.query("protocol == 'clean'").set_index("size")
        ground = 64 * 64 - 4 - 480
        expected = {"small": 1, "large": np.mean([240 / 480, ground / (ground + 240)])}
        assert 4 / 64**2 < SIZES["small"] < SIZES["medium"] < 480 / 64**2
        assert table.miou.to_dict() == pytest.approx(expected)

    def test_images(self, cases):
        report = report_of(rows_of(cases))
        assert report.images.image.tolist() == [str(index) for index in range(len(cases))]
        alone = [SegmentationScore(CLASSES, "clean") for _ in cases]
        for score, case in zip(alone, cases):
            score.update(*case)
        assert report.images.miou.tolist() == pytest.approx([score.compute().miou for score in alone])

    def test_every_score_comes_with_its_policy(self, cases):
        report = report_of(rows_of(cases))
        assert list(report.policies) == list(PROTOCOLS) and all(
            "mIoU is the mean over" in POLICIES[p] for p in POLICIES
        )


class TestOneMatchingForAll:
    def test_of_shared_ids_is_that_of_all_images_as_one(self, cases):
        labels, truth = (np.concatenate(part) for part in zip(*cases))
        report = report_of(rows_of(cases), [DATASET], shared={"m": True})
        known = truth != 255
        table = confusion_matrix(truth[known], labels[known], labels=range(7))[:CLASSES]
        rows, columns = linear_sum_assignment(-table)
        row = report.scores.iloc[0]
        assert row.protocol == DATASET
        assert row.accuracy == pytest.approx(table[rows, columns].sum() / table.sum())
        union = table[rows].sum(1) + table.sum(0)[columns] - table[rows, columns]
        assert row.miou == pytest.approx((table[rows, columns] / union).mean())
        assert row.accuracy_low <= row.accuracy <= row.accuracy_high and np.isnan(row.boundary)

    def test_looks_give_ids_a_meaning(self):
        """Segments are numbered anew in each image; their looks tell which are alike."""
        rng = np.random.default_rng(4)
        looks = np.eye(CLASSES)
        rows, plain = [], []
        for image in range(8):
            truth = np.kron(rng.integers(0, CLASSES, (3, 3)), np.ones((5, 5), int))
            order = rng.permutation(CLASSES)
            found = np.argsort(order)[truth]
            near = looks[order] + rng.normal(0, 0.05, (CLASSES, CLASSES))
            rows.append(make_row(str(image), ("m", None), found, truth, CLASSES, descriptors=near[: found.max() + 1]))
            plain.append((found, truth))
        row = report_of(rows, [DATASET]).scores.iloc[0]
        assert (row.accuracy, row.miou) == (1, 1)
        assert report_of(rows_of(plain), [DATASET], shared={"m": True}).scores.accuracy.iloc[0] < 0.7

    def test_the_bootstrap_matches_every_draw_anew(self, cases):
        frame = report_of(rows_of(cases)).rows
        weights = np.zeros((1, len(cases)), int)
        weights[0, 2] = 3  # one image, three times
        found = statistics(frame, DATASET, shared=True)["accuracy"](weights)[0]
        alone = statistics(frame.iloc[[2]], DATASET, shared=True)["accuracy"](np.ones((1, 1), int))[0]
        assert found == pytest.approx(alone)

    def test_without_descriptors(self, cases):
        with pytest.raises(KeyError):
            statistics(report_of(rows_of(cases)).rows, DATASET)

    def test_a_segments_looks_are_the_mean_of_its_patches(self):
        rng = np.random.default_rng(5)
        features, labels = rng.normal(size=(4, 4, 3)), rng.integers(0, 3, (8, 8))
        found = describe(features, labels)
        for segment in range(3):
            mean = np.mean([features[i // 2, j // 2] for i, j in np.argwhere(labels == segment)], axis=0)
            assert found[segment] == pytest.approx(mean / np.linalg.norm(mean))

    def test_groups(self):
        rng = np.random.default_rng(6)
        centres = np.eye(3).repeat(5, axis=0)
        found = group(centres + rng.normal(0, 0.01, centres.shape), np.ones(15), 3)
        assert len(set(found)) == 3 and all(len(set(found[start : start + 5])) == 1 for start in (0, 5, 10))
        assert set(group(np.eye(2), np.ones(2), 9)) == {0, 1}

    def test_features_are_those_of_the_vision_transformer(self):
        pipe, item = DinoSegPipeline.from_pretrained("pocket"), open_dataset("pocket").items[0]
        sample = item.read(128)
        folder = resolve_model("pocket", pocket="pocket-dino")
        plain = AutoModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
        pixels = pipe.processor(images=read_image(sample.image, pipe.image_size), return_tensors="pt")
        with torch.no_grad():
            expected = plain.eval()(**pixels).last_hidden_state[0, 1:].reshape(pipe.side, pipe.side, -1)
        np.testing.assert_allclose(patch_features(pipe, sample), expected, atol=1e-4)


class TestNames:
    def test_words_are_classes(self, cases):
        words = {name: index for index, name in enumerate(NAMES)}
        rng = np.random.default_rng(7)
        score, rows = SegmentationScore(CLASSES), []
        for image, (labels, truth) in enumerate(cases):
            names = rng.choice(["sky", "Car", "brick wall", "a toad", "tree"], 7).tolist()
            ids = [{"sky": 0, "Car": 1, "brick wall": 2, "a toad": None, "tree": 4}[name] for name in names]
            score.update_named(labels, truth, ids)
            rows.append(make_row(str(image), ("m", None), Named(labels, names), truth, CLASSES, words))
        row = report_of(rows).scores.iloc[0]
        assert row.protocol == NAMED and list(report_of(rows).policies) == [NAMED]
        assert (row.accuracy, row.miou) == pytest.approx((score.compute().accuracy, score.compute().miou))

    def test_no_word_at_all(self):
        row = make_row("a", ("m", None), Named(np.zeros((4, 4), int), ()), np.zeros((4, 4), int), CLASSES, {})
        assert (row["accuracy"], row["miou"]) == (0, 0)

    def test_true_words_and_captions_from_end_to_end(self, tmp_path):
        data, pipe = open_dataset("pocket").head(1), DiffSegPipeline.from_pretrained("pocket")
        report = evaluate(data, {"diffseg+true": (0.3,), "diffseg+caption": (0.3,)}, tmp_path / "out", size=128)
        assert set(report.models) == {"diffusion", "captioner"} and set(report.scores.protocol) == {NAMED}
        sample = data.items[0].read(128)
        shown = [data.classes[index] for index in np.unique(sample.truth)]
        for method, words in (("diffseg+true", shown), ("diffseg+caption", "caption")):
            out = pipe(sample.image, size=128, threshold=0.3, words=words)
            score = SegmentationScore(27)
            score.update_named(out.labels, sample.truth, [class_of(word) for word in out.words])
            (line,) = report.scores[report.scores.method == method].itertuples()
            assert (line.accuracy, line.miou) == pytest.approx((score.compute().accuracy, score.compute().miou))

    def test_plus_from_end_to_end(self, tmp_path):
        data, pipe = open_dataset("pocket").head(1), DiffSegPipeline.from_pretrained("pocket")
        (line,) = (
            evaluate(data, {"plus": None}, tmp_path / "out", size=128).scores.query("protocol == 'clean'").itertuples()
        )
        sample = data.items[0].read(128)
        accuracy, _ = image_score(pipe(sample.image, size=128, method="plus").labels, sample.truth)
        assert line.accuracy == pytest.approx(accuracy)


def test_tables_can_be_empty():
    report = Report(
        schema().empty_table().to_pandas(), Dataset("none", "val", NAMES, ()), [("m", None)], PROTOCOLS, {}, {}
    )
    assert len(report.scores) == len(report.classes) == len(report.sizes) == 0
    assert isinstance(report.scores, pd.DataFrame)
