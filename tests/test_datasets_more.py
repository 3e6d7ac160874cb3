"""ADE20K, Pascal VOC, SUN RGB-D, any folder and the hub: small trees in their real layout and encoding."""

import pickle
import sys

import numpy as np
import pytest
from helpers_datasets import (
    blocks,
    picture,
    write_ade20k,
    write_sunrgbd_matlab,
    write_sunrgbd_pictures,
    write_voc2012,
)
from PIL import Image
from test_datasets import square

from diffseg.datasets import ADE20K_150, DATASETS, SUN_37, VOC_21, UnusableImage, open_dataset
from diffseg.datasets.classes import coco_words
from diffseg.images import read_image
from diffseg.metrics import SegmentationScore
from diffseg.pocket import class_of

pytestmark = pytest.mark.filterwarnings("ignore:.*the benchmark has")


def check(item, image, truth, classes, size=32):
    """Picture and truth of an item against PIL, with the classes of values given as a function."""
    sample = item.read(size)
    assert sample.image.tobytes() == read_image(np.asarray(Image.open(image).convert("RGB")), size).tobytes()
    values = square(truth, size) if not isinstance(truth, np.ndarray) else square_of(truth, size)
    assert np.array_equal(sample.truth, np.vectorize(classes)(values))
    return sample


def square_of(array, size):
    side = min(array.shape)
    top, left = ((length - side) // 2 for length in array.shape)
    return np.asarray(
        Image.fromarray(array[top : top + side, left : left + side]).resize((size, size), Image.Resampling.NEAREST)
    )


class TestAde20k:
    def test_zero_is_anything_else_and_classes_count_from_one(self, tmp_path):
        files = write_ade20k(tmp_path, 2)
        data = open_dataset("ade20k", tmp_path)
        assert data.classes == ADE20K_150 and len(data.classes) == 150
        assert (data.classes[0], data.classes[3], data.classes[12], data.classes[149]) == (
            "wall",
            "floor",
            "person",
            "flag",
        )
        assert [item.name for item in data] == ["ADE_val_00000001", "ADE_val_00000002"]
        for item, (image, truth) in zip(data, files):
            check(item, image, truth, lambda value: 255 if value == 0 else value - 1)

    def test_without_the_folder_of_the_archive(self, tmp_path):
        write_ade20k(tmp_path, 1)
        assert len(open_dataset("ade20k", tmp_path / "ADEChallengeData2016")) == 1

    def test_training_part_and_other_values(self, tmp_path):
        write_ade20k(tmp_path, 3, "training")
        assert len(open_dataset("ade20k", tmp_path, "tune")) == 3
        with pytest.raises(FileNotFoundError, match="there are no jpg files in .*validation.*ADEChallengeData2016.zip"):
            open_dataset("ade20k", tmp_path)
        write_ade20k(tmp_path, 1, values=[151])
        with pytest.raises(UnusableImage, match=r"holds the values \[151\], which ade20k does not have"):
            open_dataset("ade20k", tmp_path).items[0].read(16)


class TestVoc2012:
    NAMES = ("2007_000033", "2007_000042")

    def test_background_is_a_class_and_the_void_is_not(self, tmp_path):
        files = write_voc2012(tmp_path, self.NAMES)
        data = open_dataset("voc2012", tmp_path)
        assert data.classes == VOC_21 and (data.classes[0], data.classes[15], len(data.classes)) == (
            "background",
            "person",
            21,
        )
        assert [item.name for item in data] == list(self.NAMES)  # not the photograph without a label map
        for item, (image, truth) in zip(data, files):
            assert Image.open(truth).mode == "P"
            check(item, image, truth, int)

    @pytest.mark.parametrize("below", ["VOCdevkit", "VOCdevkit/VOC2012"])
    def test_roots(self, tmp_path, below):
        write_voc2012(tmp_path, self.NAMES)
        assert len(open_dataset("voc2012", tmp_path / below)) == 2

    def test_lists(self, tmp_path):
        write_voc2012(tmp_path, self.NAMES, "train")
        assert len(open_dataset("voc2012", tmp_path, "tune")) == 2
        with pytest.raises(FileNotFoundError, match="val.txt' is not a file. Unpack VOCtrainval"):
            open_dataset("voc2012", tmp_path)

    def test_words(self, tmp_path):
        write_voc2012(tmp_path, self.NAMES)
        words = open_dataset("voc2012", tmp_path).words
        assert VOC_21[words["airplane"]] == "aeroplane" and VOC_21[words["tv"]] == "tv monitor" and words["dog"] == 12


class TestSunRgbd:
    def test_labels_are_numbered_through_both_parts(self, tmp_path):
        write_sunrgbd_pictures(tmp_path, 3, 2)
        data = open_dataset("sunrgbd", tmp_path)
        assert data.classes == SUN_37 and len(set(SUN_37)) == 37
        assert [item.name for item in data] == ["img-000001", "img-000002", "img-000003"]
        tuning = open_dataset("sunrgbd", tmp_path, "tune")
        assert [item.name for item in tuning] == ["img-005051", "img-005052"]
        for item in (*data, *tuning):
            check(item, item.image, item.truth, lambda value: 255 if value == 0 else value - 1)
        assert tuning.items[0].image.name == "img-000001.jpg"

    def test_matlabs_files(self, tmp_path):
        pytest.importorskip("h5py")
        files = write_sunrgbd_matlab(tmp_path, ["test", "train", "test"])
        data, tuning = (open_dataset("sunrgbd", tmp_path, split) for split in ("val", "tune"))
        assert [item.name for item in data] == ["img-000001", "img-000003"]
        assert [item.name for item in tuning] == ["img-000002"]
        for item, index in ((data.items[0], 0), (data.items[1], 2), (tuning.items[0], 1)):
            check(item, *files[index], lambda value: 255 if value == 0 else value - 1)
        before = data.items[0].digest()
        assert before == data.items[0].digest() != data.items[1].digest()
        assert pickle.loads(pickle.dumps(data.items[1])) == data.items[1]

    def test_without_h5py(self, tmp_path, monkeypatch):
        pytest.importorskip("h5py")
        write_sunrgbd_matlab(tmp_path, ["test"])
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(ImportError, match=r"SUNRGBD2Dseg.mat needs h5py: pip install 'diffseg\[sunrgbd\]'"):
            open_dataset("sunrgbd", tmp_path)

    def test_what_is_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no jpg files in .*SUNRGBD-test_images.*Unpack SUNRGBD.zip"):
            open_dataset("sunrgbd", tmp_path)
        (tmp_path / "SUNRGBDtoolbox").mkdir()
        with pytest.raises(FileNotFoundError, match="SUNRGBDMeta.mat is missing"):
            open_dataset("sunrgbd", tmp_path)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


class TestFolder:
    @pytest.fixture
    def rng(self):
        return np.random.default_rng(0)

    def test_side_by_side(self, tmp_path, rng):
        for name in ("b", "a/c", "Größe 1"):
            save(tmp_path / f"{name}.jpg", picture(rng, 20, 30))
            save(tmp_path / f"{name}.png", blocks(rng, [0, 3, 9, 255], 20, 30, 5))
        save(tmp_path / "alone.jpg", picture(rng, 20, 30))
        data = open_dataset("folder", tmp_path)
        assert sorted(item.name for item in data) == sorted(["b", "a/c", "Größe 1"])
        assert data.classes == ("0", "3", "9") and data.name == tmp_path.name
        for item in data:
            check(item, item.image, item.truth, {0: 0, 3: 1, 9: 2, 255: 255}.get, 16)

    def test_pictures_that_are_pngs(self, tmp_path, rng):
        save(tmp_path / "x.png", picture(rng, 20, 30))
        save(tmp_path / "x_labels.png", blocks(rng, [1, 2], 20, 30, 5))
        (item,) = open_dataset("folder", tmp_path)
        assert (item.name, item.image.name, item.truth.name) == ("x", "x.png", "x_labels.png")

    def test_two_folders(self, tmp_path, rng):
        save(tmp_path / "images" / "a" / "x.png", picture(rng, 20, 30))
        save(tmp_path / "labels" / "a" / "x.png", blocks(rng, [1, 2], 20, 30, 5))
        assert [item.name for item in open_dataset("folder", tmp_path)] == ["a/x"]

    def test_names_that_differ_in_their_suffix_only(self, tmp_path, rng):
        for suffix in ("jpg", "webp"):
            save(tmp_path / f"x.{suffix}", picture(rng, 20, 30))
        save(tmp_path / "x.png", blocks(rng, [1, 2], 20, 30, 5))
        assert [item.name for item in open_dataset("folder", tmp_path)] == ["x.jpg", "x.webp"]

    @pytest.mark.parametrize("head", ["value,name\n", "", "\ufeffvalue;ignored,name\n"])
    def test_a_table_of_names(self, tmp_path, rng, head):
        save(tmp_path / "x.jpg", picture(rng, 20, 30))
        save(tmp_path / "x.png", blocks(rng, [0, 3, 9, 255], 20, 30, 5))
        (tmp_path / "classes.csv").write_text(
            f'{head}9, "sky, cloudy" \n3,car\n0,\n'.replace(', "', ',"').replace('" ', '"')
        )
        data = open_dataset("folder", tmp_path)
        assert data.classes == ("sky, cloudy", "car")
        check(data.items[0], tmp_path / "x.jpg", tmp_path / "x.png", {9: 0, 3: 1, 0: 255, 255: 255}.get, 16)

    def test_a_value_without_a_row(self, tmp_path, rng):
        save(tmp_path / "x.jpg", picture(rng, 20, 30))
        save(tmp_path / "x.png", blocks(rng, [1, 2], 20, 30, 5))
        (tmp_path / "classes.csv").write_text("1,car\n")
        with pytest.raises(UnusableImage, match=r"holds the values \[2\], which classes.csv does not name"):
            open_dataset("folder", tmp_path).items[0].read(16)

    @pytest.mark.parametrize("text", ["1,car\n1,sky\n", "1,car\n2,car\n", "1\n", "a,b\nc,d\n"])
    def test_tables_that_make_no_sense(self, tmp_path, rng, text):
        save(tmp_path / "x.jpg", picture(rng, 20, 30))
        save(tmp_path / "x.png", blocks(rng, [1, 2], 20, 30, 5))
        (tmp_path / "classes.csv").write_text(text)
        with pytest.raises(ValueError, match="classes.csv (is no table|names a value or a class twice)"):
            open_dataset("folder", tmp_path)

    def test_labels_of_16_bits_and_of_one(self, tmp_path, rng):
        save(tmp_path / "x.jpg", picture(rng, 20, 30))
        labels = blocks(rng, [0, 1], 20, 30, 5).astype(np.uint16) * 40_000
        save(tmp_path / "x.png", labels)
        data = open_dataset("folder", tmp_path)
        assert data.classes == ("0", "40000")
        assert np.array_equal(data.items[0].read(20).truth, (square_of(labels > 0, 20)))
        Image.fromarray(labels > 0).save(tmp_path / "x.png")
        assert Image.open(tmp_path / "x.png").mode == "1"
        assert len(np.unique(open_dataset("folder", tmp_path).items[0].read(20).truth)) == 2

    def test_splits(self, tmp_path, rng):
        for part in ("val", "tune"):
            save(tmp_path / part / f"{part}.jpg", picture(rng, 20, 30))
            save(tmp_path / part / f"{part}.png", blocks(rng, [1, 2], 20, 30, 5))
            assert [item.name for item in open_dataset("folder", tmp_path, part)] == [part]
        with pytest.raises(ValueError, match="split='tune': .* has no folder 'tune'"):
            open_dataset("folder", tmp_path / "val", "tune")

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no picture with a label map. Put a label map beside"):
            open_dataset("folder", tmp_path)
        with pytest.raises(FileNotFoundError, match="is not a folder"):
            open_dataset("folder", tmp_path / "gone")

    def test_too_many_classes(self, tmp_path, rng):
        save(tmp_path / "x.jpg", picture(rng, 20, 30))
        save(tmp_path / "x.png", np.arange(600, dtype=np.uint16).reshape(20, 30))
        with pytest.raises(ValueError, match="has 599 classes; expected 1 to 254"):
            open_dataset("folder", tmp_path)

    def test_a_colour_map_is_no_label_map(self, tmp_path, rng):
        save(tmp_path / "x.jpg", picture(rng, 20, 30))
        save(tmp_path / "x.png", picture(rng, 20, 30))
        (tmp_path / "classes.csv").write_text("1,car\n")
        with pytest.raises(UnusableImage, match="is an image of mode RGB, not of one channel"):
            open_dataset("folder", tmp_path).items[0].read(16)


class TestHub:
    @pytest.fixture
    def root(self, tmp_path):
        """A data set in Parquet files, as the hub keeps them: pictures and label maps as the bytes of files."""
        datasets = pytest.importorskip("datasets")
        rng = np.random.default_rng(0)
        rows = {
            "image": [Image.fromarray(picture(rng, 20, 30)) for _ in range(4)],
            "label": [Image.fromarray(blocks(rng, [0, 1, 7], 20, 30, 5)) for _ in range(4)],
        }
        made = datasets.Dataset.from_dict(
            rows, datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
        )
        (tmp_path / "set" / "data").mkdir(parents=True)
        made.to_parquet(tmp_path / "set" / "data" / "validation-00000-of-00001.parquet")
        (tmp_path / "names.csv").write_text("value,name\n1,car\n7,sky\n0,\n")
        return tmp_path / "set", rows

    def test_rows_are_read_in_any_order(self, root, tmp_path):
        folder, rows = root
        data = open_dataset("hub", folder, listing=tmp_path / "names.csv")
        assert data.classes == ("car", "sky") and len(data) == 4
        for index in (0, 1, 3, 2, 0):
            sample, item = data.items[index].read(20), data.items[index]
            assert sample.image.tobytes() == read_image(rows["image"][index], 20).tobytes()
            values = square_of(np.asarray(rows["label"][index]), 20)
            assert np.array_equal(sample.truth, np.vectorize({1: 0, 7: 1, 0: 255}.get)(values))
            assert item.digest() == pickle.loads(pickle.dumps(item)).digest()
        assert len({item.digest() for item in data}) == 4

    def test_what_is_missing(self, root, tmp_path):
        folder, _ = root
        with pytest.raises(ValueError, match="listing=None: .* Pass a CSV file with two columns"):
            open_dataset("hub", folder)
        with pytest.raises(ValueError, match="has the parts validation, none of train, training"):
            open_dataset("hub", folder, "tune", tmp_path / "names.csv")
        with pytest.raises(OSError, match="could not be loaded as a data set of the hub"):
            open_dataset("hub", "nobody/nothing", listing=tmp_path / "names.csv")

    def test_without_the_package(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match=r"pip install 'diffseg\[hub\]'"):
            open_dataset("hub", "owner/name")

    def test_a_row_beyond_the_end(self, root, tmp_path):
        from dataclasses import replace

        item = open_dataset("hub", root[0], listing=tmp_path / "names.csv").items[-1]
        with pytest.raises(UnusableImage, match="has no row 9 any more"):
            replace(item, index=9).read(20)


class TestWords:
    def test_of_the_scenes_are_their_classes(self):
        data = open_dataset("pocket")
        assert all(data.words[name] == class_of(name) for name in data.classes)

    def test_of_coco_are_its_fine_labels(self):
        words = coco_words()
        from diffseg.datasets import COCO_STUFF_27

        groups = list(COCO_STUFF_27)
        expected = {"dog": "animal-things", "grass": "plant-stuff", "wall-brick": "wall-stuff", "wall": "wall-stuff",
                    "building": "building-stuff", "table": "furniture-stuff", "sky": "sky-stuff"}  # fmt: skip
        assert {word: groups[words[word]] for word in expected} == expected

    def test_spoken_names(self, tmp_path):
        from diffseg.datasets import COCO_STUFF_27, Dataset

        data = Dataset("cocostuff27", "val", tuple(COCO_STUFF_27), ())
        assert data.spoken[0] == "electronic" and data.words["animal"] == list(COCO_STUFF_27).index("animal-things")


def test_every_data_set_can_be_scored_with_its_number_of_classes():
    assert DATASETS == ("pocket", "cocostuff27", "cityscapes", "ade20k", "voc2012", "sunrgbd", "folder", "hub")
    truth = np.full((4, 4), 149, np.uint8)
    score = SegmentationScore(classes=150, protocol="clean")
    score.update(np.zeros((4, 4), int), truth)
    assert score.compute().miou == 1
