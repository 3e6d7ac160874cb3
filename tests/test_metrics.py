"""Scores worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from diffseg.metrics import SegmentationScore, compare, count_overlap, image_score, match_segments

# Two classes (0, 2) of a world of three, three segments; 10 labelled pixels, 2 ignored.
#            segment 0  1  2
# class 0            4  1  0
# class 2            0  2  3
TRUTH = np.array([[0, 0, 0, 0, 0, 2], [2, 2, 2, 2, 255, 255]])
PRED = np.array([[0, 0, 0, 0, 1, 1], [1, 2, 2, 2, 2, 0]])


def score(pred, truth, **options):
    result = SegmentationScore(**options)
    result.update(pred, truth)
    return result.compute()


def test_overlap():
    assert count_overlap(PRED, TRUTH, 3).tolist() == [[4, 1, 0], [0, 0, 0], [0, 2, 3]]


def test_matching():
    # paper: the leftover segment 1 goes to the absent class 1; clean: to nobody
    assert match_segments(PRED, TRUTH, 3).tolist() == [0, 1, 2]
    assert match_segments(PRED, TRUTH, 3, protocol="clean").tolist() == [0, -1, 2]


def test_paper_charges_an_absent_class():
    result = score(PRED, TRUTH, classes=3)
    assert result.accuracy == pytest.approx(7 / 10)
    # class 0: 4 of 5; class 1: nothing of the 3 pixels it was given; class 2: 3 of 5
    assert result.iou == pytest.approx([4 / 5, 0, 3 / 5])
    assert result.miou == pytest.approx((4 / 5 + 0 + 3 / 5) / 3)


def test_clean_does_not():
    result = score(PRED, TRUTH, classes=3, protocol="clean")
    assert result.accuracy == pytest.approx(7 / 10)
    assert result.iou == pytest.approx([4 / 5, np.nan, 3 / 5], nan_ok=True)
    assert result.miou == pytest.approx((4 / 5 + 3 / 5) / 2)


def test_one_image():
    accuracy, miou = image_score(PRED, TRUTH)
    assert accuracy == pytest.approx(7 / 10)
    assert miou == pytest.approx((4 / 5 + 3 / 5) / 2)


def test_more_segments_than_classes_are_charged_to_nobody():
    pred, truth = np.array([0, 1, 2, 2]), np.zeros(4, int)
    result = score(pred[None], truth[None], classes=1)
    assert (result.accuracy, result.miou) == (2 / 4, 2 / 4)


def test_fewer_segments_than_classes():
    truth = np.array([[0, 0, 0, 1, 1]])
    pred = np.zeros_like(truth)
    for protocol in ("paper", "clean"):
        result = score(pred, truth, classes=2, protocol=protocol)
        assert result.accuracy == pytest.approx(3 / 5)
        assert result.iou == pytest.approx([3 / 5, 0])
    assert image_score(pred, truth) == pytest.approx((3 / 5, 3 / 10))


def test_overlap_decides_not_iou():
    # class 0 (6 pixels): 4 in segment 0, 2 in segment 1 (all of it); class 1: 4, all in segment 0
    truth = np.array([[0] * 6 + [1] * 4])
    pred = np.array([[0] * 4 + [1] * 2 + [0] * 4])
    # 0-1 and 1-0 agree in 2 + 4 pixels, 0-0 and 1-1 in 4 + 0
    assert match_segments(pred, truth, 2).tolist() == [1, 0]
    assert image_score(pred, truth) == pytest.approx((6 / 10, (2 / 6 + 4 / 8) / 2))


def test_pixels_are_summed_over_images_before_dividing():
    total = SegmentationScore(classes=2)
    total.update(np.zeros((1, 4), int), np.array([[0, 0, 0, 1]]))  # matched to class 0
    total.update(np.zeros((1, 4), int), np.array([[1, 1, 1, 1]]))  # matched to class 1
    result = total.compute()
    assert result.accuracy == pytest.approx(7 / 8)
    assert result.iou == pytest.approx([3 / 4, 4 / 5])


@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_perfect_segments_under_any_numbering(protocol):
    truth = torch.arange(25).reshape(5, 5) % 4
    pred = torch.tensor([2, 0, 3, 1])[truth]
    result = score(pred, truth, classes=4, protocol=protocol)
    assert (result.accuracy, result.miou) == (1, 1)
    assert image_score(pred, truth) == (1, 1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    segments=st.integers(1, 8),
    protocol=st.sampled_from(["paper", "clean"]),
)
def test_agrees_with_a_confusion_matrix_of_the_matched_classes(seed, segments, protocol):
    rng = np.random.default_rng(seed)
    truth, pred = rng.integers(0, 5, (6, 6)), rng.integers(0, segments, (6, 6))
    matched = match_segments(pred, truth, 5, protocol=protocol)
    result = score(pred, truth, classes=5, protocol=protocol)
    # a sixth column for pixels that were matched to nothing
    classes = np.where(matched >= 0, matched, 5)[pred]
    table = confusion_matrix(truth.ravel(), classes.ravel(), labels=range(6))[:5]
    hits, union = np.diag(table), table.sum(1) + table[:, :5].sum(0) - np.diag(table)
    assert result.accuracy == pytest.approx(hits.sum() / 36)
    seen = union > 0
    assert result.iou[seen] == pytest.approx(hits[seen] / union[seen])
    assert np.isnan(result.iou[~seen]).all()
    # one to one
    used = matched[matched >= 0]
    assert len(set(used.tolist())) == len(used)


def test_nothing_labelled():
    result = score(PRED, np.full_like(TRUTH, -1))
    assert np.isnan([result.accuracy, result.miou]).all()
    assert np.isnan(result.iou).all()
    with pytest.raises(ValueError, match="no labelled pixel"):
        image_score(PRED, np.full_like(TRUTH, 255))


def test_ignored_pixels_count_nowhere():
    other = PRED.copy()
    other[TRUTH == 255] = 1
    assert score(other, TRUTH, classes=3).iou.tolist() == score(PRED, TRUTH, classes=3).iou.tolist()


def test_the_ignored_value_can_be_chosen():
    truth = np.where(TRUTH == 255, 1, TRUTH)
    assert count_overlap(PRED, truth, 3, ignore=1).tolist() == [[4, 1, 0], [0, 0, 0], [0, 2, 3]]


@pytest.mark.parametrize(
    ("pred", "truth", "message"),
    [
        (PRED, TRUTH[:1], r"pred has the shape \[2, 6\] and truth \[1, 6\]"),
        (PRED[:0], TRUTH[:0], "not empty"),
        (PRED - 1, TRUTH, "pred holds -1; segment ids start at 0"),
        (PRED, TRUTH * 2, "truth holds classes from 0 to 510; expected 0 to 2"),
    ],
)
def test_errors_name_the_trouble(pred, truth, message):
    with pytest.raises((ValueError, TypeError), match=message):
        count_overlap(pred, truth, 3)


def test_options():
    with pytest.raises(ValueError, match="protocol='fair' must be one of"):
        SegmentationScore(protocol="fair")
    with pytest.raises(ValueError, match="protocol='fair' must be one of"):
        match_segments(PRED, TRUTH, 3, protocol="fair")
    with pytest.raises(ValueError, match="classes=0"):
        SegmentationScore(classes=0)


def test_compare_scores_each_method_on_each_case_and_holds_one_case_at_a_time():
    alive = []

    def cases():
        for shift in (0, 1):
            alive.append(shift)
            yield shift, TRUTH
            alive.remove(shift)

    def peek(shift):
        assert alive == [shift]
        return PRED

    scores = compare({"pred": peek, "truth": lambda shift: TRUTH + shift}, cases())
    assert scores[["case", "method"]].values.tolist() == [[0, "pred"], [0, "truth"], [1, "pred"], [1, "truth"]]
    first = scores.iloc[0]
    assert (first.accuracy, first.miou) == image_score(PRED, TRUTH) and first.segments == len(np.unique(PRED))
    assert scores[scores.method == "truth"].miou.tolist() == [1, 1]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_named_segments_are_scored_as_a_confusion_matrix_says(seed, segments):
    rng = np.random.default_rng(seed)
    score, matrix = SegmentationScore(4), np.zeros((6, 6))
    for _ in range(2):
        labels = rng.integers(0, segments, (5, 7))
        truth = rng.choice([0, 1, 2, 3, 255], (5, 7))
        names = rng.choice([0, 1, 2, 3, None], segments).tolist()
        score.update_named(labels, truth, names)
        said = np.array([4 if name is None else name for name in names])[labels]
        known = truth != 255
        matrix[:5, :5] += confusion_matrix(truth[known], said[known], labels=range(5))
    hits = matrix.diagonal()[:4]
    union = (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())[:4]
    result = score.compute()
    assert result.accuracy == pytest.approx(hits.sum() / matrix.sum())
    np.testing.assert_allclose(result.iou[union > 0], hits[union > 0] / union[union > 0])
    assert result.miou == pytest.approx((hits[union > 0] / union[union > 0]).mean())


@pytest.mark.parametrize("names", [[0], [0, 9], [0, -1]])
def test_names_that_are_missing_or_unknown(names):
    with pytest.raises(ValueError, match="must be one class from 0 to 3, or None, for each of the 2 segments"):
        SegmentationScore(4).update_named(np.array([[0, 1]]), np.array([[0, 1]]), names)
