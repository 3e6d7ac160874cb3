"""What is taken away: against pycocotools, supervision and transformers, and read back from files."""

import errno
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch
from helpers_faults import files_no_larger_than
from helpers_models import tiny_components
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from transformers import MaskFormerConfig
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil
from transformers.models.maskformer.modeling_maskformer import MaskFormerForInstanceSegmentationOutput

from diffseg import DiffSegOutput, DiffSegPipeline
from diffseg.export import compress, encode_mask, run_lengths
from diffseg.models.fingerprint import fingerprint

SIZE = 64
OPTIONS = {"size": SIZE, "points": 4, "threshold": 0.001}
WORDS = ["b", "a", "c"]

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return DiffSegPipeline(**tiny_components(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A file whose central square does not fill it."""
    file = tmp_path_factory.mktemp("photo") / "my hölidays.png"
    colours = np.random.default_rng(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    Image.fromarray(np.kron(colours, np.ones((20, 20, 1), np.uint8))).save(file)  # 100 x 160
    return file


@pytest.fixture(scope="module")
def out(pipe, photo):
    made = pipe(photo, **OPTIONS)
    assert len(made.proposals) > 3
    return made


@pytest.fixture(scope="module")
def named(pipe, photo):
    made = pipe(photo, words=WORDS, **OPTIONS)
    assert len(made.words) > 1
    return made


def blocks(side, pixels):
    """An output of side x side segments."""
    labels = torch.arange(side**2).reshape(side, side).repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)
    return DiffSegOutput(labels, torch.full((side**2, 2, 2), 0.25), torch.full((2, 2, 2, 2), 0.25))


class TestRunLengths:
    @given(masks)
    def test_equal_those_of_pycocotools(self, mask):
        expected = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        assert compress(run_lengths(mask)) == expected["counts"].decode()
        assert encode_mask(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}

    @given(st.lists(st.integers(1, 10**7), min_size=1, max_size=20))
    def test_long_runs(self, counts):
        size = [sum(counts), 1]
        expected = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
        assert compress(counts) == expected["counts"].decode()

    @given(masks)
    def test_are_in_the_order_of_columns(self, mask):
        counts = run_lengths(mask)
        values = np.arange(len(counts)) % 2 == 1
        assert (np.repeat(values, counts).reshape(mask.shape, order="F") == mask).all()

    def test_without_pycocotools(self, out, monkeypatch):
        expected = out.to_coco()
        monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
        with pytest.raises(ImportError):
            from pycocotools.mask import encode  # noqa: F401
        assert out.to_coco() == expected


class TestCoco:
    @pytest.mark.parametrize("original", [True, False])
    def test_round_trip(self, out, original):
        labels = out.at_original() if original else out.labels.numpy()
        found = json.loads(json.dumps(out.to_coco(original=original)))
        assert [each["id"] for each in found] == list(range(1, len(out.proposals) + 1))
        for each in found:
            rle = each["segmentation"]
            assert (coco_mask.decode(rle) == (labels == each["id"] - 1)).all()
            assert each["area"] == coco_mask.area(rle)
            assert each["bbox"] == coco_mask.toBbox(rle).tolist()

    def test_a_data_set_of_two_pictures(self, pipe, photo, named, tmp_path):
        both = [named, pipe(photo, words=WORDS, prompt="abc", **OPTIONS)]
        found = [each for number, out in enumerate(both, start=1) for each in out.to_coco(image_id=number)]
        for number, each in enumerate(found, start=1):
            each["id"] = number
            assert WORDS[each["category_id"] - 1] == each["category"]  # the same word, the same number
        content = {
            "images": [{"id": number, "file_name": photo.name, "height": 100, "width": 160} for number in (1, 2)],
            "categories": [{"id": number, "name": word} for number, word in enumerate(WORDS, start=1)],
            "annotations": found,
        }
        (tmp_path / "data.json").write_text(json.dumps(content))
        data = COCO(tmp_path / "data.json")
        for each in data.loadAnns(data.getAnnIds(imgIds=[2])):
            (word,) = data.loadCats(each["category_id"])
            mask = both[1].at_original() == both[1].words.index(word["name"])
            assert (data.annToMask(each) == mask).all()
        results = data.loadRes(found)  # what evaluation takes
        assert results.getAnnIds() == data.getAnnIds()

    def test_supervision_reads_it(self, named, photo, tmp_path):
        content = {
            "images": [{"id": 1, "file_name": photo.name, "height": 100, "width": 160}],
            "categories": [{"id": number, "name": word} for number, word in enumerate(WORDS, start=1)],
            "annotations": named.to_coco(),
        }
        (tmp_path / "data.json").write_text(json.dumps(content))
        data = sv.DetectionDataset.from_coco(str(photo.parent), str(tmp_path / "data.json"), force_masks=True)
        ((_, _, found),) = list(data)
        assert [data.classes[number] for number in found.class_id] == list(named.words)
        for index, mask in enumerate(found.mask):
            assert (mask == (named.at_original() == index)).all()


class TestSegments:
    def test_supervision_reads_them(self, named):
        found = sv.Detections.from_transformers(named.to_segments(), id2label=dict(enumerate(WORDS)))
        assert found["class_name"].tolist() == list(named.words)
        np.testing.assert_allclose(found.confidence, named.confidence, atol=1e-6)
        for index, mask in enumerate(found.mask):
            assert (mask == (named.at_original() == index)).all()
        left, top, right, bottom = found.xyxy[0]  # supervision counts the last pixel in
        box = coco_mask.toBbox(named.to_coco()[0]["segmentation"])
        assert [left, top, right - left + 1, bottom - top + 1] == box.tolist()

    def test_have_the_form_of_transformers(self, named):
        """Against what transformers makes of random logits."""
        torch.manual_seed(0)
        logits = MaskFormerForInstanceSegmentationOutput(
            class_queries_logits=10 * torch.randn(1, 6, len(WORDS) + 1),
            masks_queries_logits=20 * torch.randn(1, 6, 8, 8),
        )
        processor = MaskFormerImageProcessorPil(num_labels=MaskFormerConfig().num_labels)
        (theirs,) = processor.post_process_panoptic_segmentation(logits, overlap_mask_area_threshold=0)
        ours = named.to_segments()
        assert ours.keys() == theirs.keys()
        assert ours["segmentation"].dtype == theirs["segmentation"].dtype == torch.int32
        info = theirs["segments_info"][0]
        for each in ours["segments_info"]:
            assert each.keys() == info.keys() | {"label"}
            assert all(type(each[name]) is type(info[name]) for name in info)

    def test_without_words(self, out):
        found = out.to_segments(original=False)
        assert torch.equal(found["segmentation"], out.labels.int() + 1)
        first = {"id": 1, "label_id": 0, "was_fused": False, "score": 1.0}
        assert found["segments_info"][0] == first and len(found["segments_info"]) == len(out.proposals)

    def test_outside_of_the_crop_is_zero(self, out):
        assert torch.equal(out.to_segments()["segmentation"], torch.from_numpy(out.at_original() + 1).int())

    def test_from_attention_alone(self, pipe, photo):
        made = pipe.segment(pipe.attend(photo, size=SIZE), points=4, threshold=0.001)
        assert made.to_segments()["segmentation"].shape == (SIZE, SIZE)
        assert made.to_coco()[0]["segmentation"]["size"] == [SIZE, SIZE]

    def test_what_is_too_small_to_be_seen_is_left_out(self):
        made = blocks(8, 4)
        made.original_size = (4, 4)
        assert len(made.to_segments()["segments_info"]) == len(made.to_coco()) == 16


class TestSave:
    def test_labels(self, out, tmp_path):
        labels, overlay, about = out.save(tmp_path)
        assert [file.name for file in (labels, overlay, about)] == [
            f"my hölidays{end}" for end in (".labels.png", ".overlay.png", ".json")
        ]
        with Image.open(labels) as picture:
            assert picture.mode == "P"
            assert (np.asarray(picture) == out.at_original() + 1).all()
            colours = np.asarray(picture.convert("RGB"))
        assert (colours[0, 0] == 0).all()  # outside of the crop
        seen = {tuple(colours[out.at_original() == index].reshape(-1, 3)[0]) for index in range(len(out.proposals))}
        assert len(seen) == len(out.proposals)

    def test_overlay(self, out, tmp_path):
        _, overlay, _ = out.save(tmp_path)
        with Image.open(overlay) as picture:
            assert (picture.mode, picture.size) == ("RGB", out.image.size)
            inner = np.asarray(picture, float)[2:-2, 2:-2]
        assert np.abs(inner - np.asarray(out.image)[2:-2, 2:-2]).mean() > 1

    def test_a_word_has_one_colour(self, named, tmp_path):
        other = DiffSegOutput(**dict(named) | {"labels": named.labels.flip(0), "words": named.words[::-1]})
        colours = []
        for number, made in enumerate((named, other)):
            labels, *_ = made.save(tmp_path, f"{number}")
            with Image.open(labels) as picture:
                palette = np.array(picture.getpalette()).reshape(-1, 3)[1:]
            colours.append({word: tuple(palette[index]) for index, word in enumerate(made.words)})
        assert colours[0] == colours[1]

    def test_about(self, pipe, named, tmp_path):
        *_, file = named.save(tmp_path, "b")
        about = json.loads(file.read_text(encoding="utf-8"))
        assert about["picture"] == {"file": "my hölidays.png"}
        assert (about["height"], about["width"], about["caption"]) == (100, 160, "b, a, c")
        areas = np.unique(named.at_original()[named.at_original() >= 0], return_counts=True)[1]
        assert [each["area"] for each in about["segments"]] == areas.tolist()
        assert [each["word"] for each in about["segments"]] == list(named.words)
        assert [each["bbox"] for each in about["segments"]] == [each["bbox"] for each in named.to_coco()]
        assert about["settings"].items() >= {"threshold": 0.001, "words": WORDS, "size": SIZE, "seed": 0}.items()
        assert about["model"] == {"name": None, "fingerprint": fingerprint(pipe)}
        assert about["versions"]["torch"] and about["versions"]["diffseg"]

    def test_the_threshold_that_was_used_is_written(self, pipe, photo):
        assert pipe(photo, size=SIZE, points=4).settings["threshold"] == pipe.threshold
        thresholds = pipe(photo, size=SIZE, points=4, threshold=[0.1, 0.2, 0.3]).settings["threshold"]
        assert thresholds == [0.1, 0.2, 0.3]
        generator = torch.Generator().manual_seed(3)
        assert pipe(photo, size=SIZE, points=4, generator=generator).settings["seed"] is None

    def test_settings_are_ready_for_a_json_file(self, pipe, photo):
        weights = {16: 1, 8: np.float64(2)}
        made = pipe(photo, size=SIZE, points=4, threshold=(np.float64(0.5), 1, 1), weights=weights, crop=False)
        assert json.loads(json.dumps(made.settings)) == dict(made.settings)

    def test_more_segments_than_eight_bits_hold(self, tmp_path):
        made = blocks(17, 2)  # 289 segments
        labels, about = made.save(tmp_path)
        with Image.open(labels) as picture:
            assert picture.mode.startswith("I;16")
            assert (np.asarray(picture) == made.labels.numpy() + 1).all()
        assert len(json.loads(about.read_text())["segments"]) == 289

    def test_255_segments_fit_into_eight_bits(self, tmp_path):
        labels = torch.arange(255).reshape(15, 17)
        made = DiffSegOutput(labels, torch.full((255, 2, 2), 0.25), torch.full((2, 2, 2, 2), 0.25))
        file, *_ = made.save(tmp_path)
        with Image.open(file) as picture:
            assert picture.mode == "P" and (np.asarray(picture) == labels.numpy() + 1).all()

    def test_names(self, out, tmp_path):
        files = out.save(tmp_path / "new" / "folder", "con", overlay=False)
        assert [file.name for file in files] == ["_con.labels.png", "_con.json"]
        for name in ("a/b", "", "..", "."):
            with pytest.raises(ValueError, match="must be a file's name without folders"):
                out.save(tmp_path, name)

    def test_the_same_output_gives_the_same_files(self, out, tmp_path):
        first, second = (out.save(tmp_path / name) for name in "ab")
        assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]

    def test_a_copy_knows_the_models_name_alone(self, out):
        copy = pickle.loads(pickle.dumps(out))
        assert copy.settings == out.settings and copy.model.describe() == {"name": None, "fingerprint": None}

    def test_a_file_that_cannot_be_written_leaves_the_older_one(self, out, tmp_path):
        before = [file.read_bytes() for file in out.save(tmp_path)]
        other = blocks(64, 1)
        other.file = out.file
        with files_no_larger_than(100), pytest.raises(OSError) as caught:
            other.save(tmp_path)
        assert caught.value.errno == errno.EFBIG and "my hölidays.labels.png" in str(caught.value)
        assert [file.read_bytes() for file in sorted(tmp_path.iterdir(), key=_order)] == before


def _order(file: Path) -> int:
    return [".labels.png", ".overlay.png", ".json"].index(file.name.removeprefix("my hölidays"))
