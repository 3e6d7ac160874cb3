"""Data sets: small trees in the real layout, against label maps worked out by hand and PIL's own resizing."""

import pickle
import warnings

import numpy as np
import pytest
from helpers_datasets import write_cityscapes, write_coco
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffseg import datasets
from diffseg.datasets import COCO_STUFF_27, UNLABELLED, UnusableImage, nearest_square, open_dataset, read_truths
from diffseg.images import read_image
from diffseg.metrics import IGNORE, NUM_CLASSES
from diffseg.pocket import CLASSES, scene

pytestmark = pytest.mark.filterwarnings("ignore:.*the benchmark has")


def square(path, size):
    """PIL's crop and nearest neighbour."""
    image = Image.open(path)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    cropped = image.crop((left, top, left + side, top + side))
    return np.asarray(cropped.resize((size, size), Image.Resampling.NEAREST))


# The 182 labels in the order of COCO-Stuff's labels.txt, which counts from 1; the stuffthingmaps hold that number - 1.
COCO_LABELS = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat, backpack,
umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl, banana,
apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, mirror,
dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush, banner,
blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth,
clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill,
house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other,
plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other,
skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree,
vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops,
window-blind, window-other, wood
"""

# The lower nodes of COCO-Stuff's hierarchy (Caesar et al., 2018, Fig. 2) with the names below them.
COCO_HIERARCHY = {
    "electronic-things": "tv, laptop, mouse, remote, keyboard, cell phone",
    "appliance-things": "microwave, oven, toaster, sink, refrigerator, blender",
    "food-things": "banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake",
    "furniture-things": "chair, couch, potted plant, bed, mirror, dining table, window, desk, toilet, door",
    "indoor-things": "book, clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush",
    "kitchen-things": "bottle, plate, wine glass, cup, fork, knife, spoon, bowl",
    "accessory-things": "hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase",
    "animal-things": "bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    "outdoor-things": "traffic light, fire hydrant, street sign, stop sign, parking meter, bench",
    "person-things": "person",
    "sports-things": (
        "frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
        "tennis racket"
    ),
    "vehicle-things": "bicycle, car, motorcycle, airplane, bus, train, truck, boat",
    "ceiling-stuff": "ceiling-tile, ceiling-other",
    "floor-stuff": "carpet, floor-tile, floor-wood, floor-marble, floor-stone, floor-other",
    "food-stuff": "fruit, salad, vegetable, food-other",
    "furniture-stuff": (
        "door-stuff, desk-stuff, table, shelf, cabinet, cupboard, mirror-stuff, counter, light, stairs, furniture-other"
    ),
    "rawmaterial-stuff": "cardboard, paper, plastic, metal",
    "textile-stuff": "rug, mat, towel, napkin, clothes, cloth, curtain, blanket, pillow, banner, textile-other",
    "wall-stuff": "wall-tile, wall-panel, wall-wood, wall-brick, wall-stone, wall-concrete, wall-other",
    "window-stuff": "window-blind, window-other",
    "building-stuff": "house, skyscraper, bridge, tent, roof, building-other",
    "ground-stuff": "sand, snow, dirt, mud, gravel, road, pavement, railroad, platform, playingfield, ground-other",
    "plant-stuff": "grass, tree, bush, leaves, flower, branch, moss, straw, plant-other",
    "sky-stuff": "clouds, sky-other",
    "solid-stuff": "wood, rock, stone, mountain, hill, solid-other",
    "structural-stuff": "fence, cage, net, railing, structural-other",
    "water-stuff": "fog, river, sea, waterdrops, water-other",
}

# labelIds from 0 on, as the data set's scripts list them; up to "ground" they are void.
CITYSCAPES_LABELS = """
unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road, sidewalk, parking, rail track,
building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, traffic light, traffic sign, vegetation, terrain,
sky, person, rider, car, truck, bus, caravan, trailer, train, motorcycle, bicycle
"""


def split_names(text):
    return [name.strip() for name in text.split(",")]


class TestTables:
    def test_every_coco_label_is_in_its_group(self):
        names = split_names(COCO_LABELS)
        assert len(names) == len(set(names)) == 182
        expected = {group: sorted(map(names.index, split_names(text))) for group, text in COCO_HIERARCHY.items()}
        assert {group: sorted(values) for group, values in COCO_STUFF_27.items()} == expected

    def test_coco_groups_are_in_the_benchmarks_order(self):
        assert list(COCO_STUFF_27) == list(COCO_HIERARCHY) and len(COCO_STUFF_27) == NUM_CLASSES

    def test_every_coco_value_has_one_class(self):
        values = [value for group in COCO_STUFF_27.values() for value in group]
        assert sorted(values) == list(range(182))
        assert len(COCO_STUFF_27) == NUM_CLASSES
        # 12 classes of things, whose 91 values come first, then 15 of stuff
        for index, (name, group) in enumerate(COCO_STUFF_27.items()):
            assert name.endswith("-things" if index < 12 else "-stuff")
            assert all((value < 91) == (index < 12) for value in group)

    @pytest.mark.parametrize(("number", "name"), list(enumerate(split_names(CITYSCAPES_LABELS))))
    def test_every_cityscapes_id(self, tmp_path, number, name):
        write_cityscapes(tmp_path, 1, height=8, width=8, values=[number])
        (value,) = np.unique(next(iter(open_dataset("cityscapes", tmp_path))).read(8).truth)
        if number < 7:
            assert value == UNLABELLED and name not in datasets.CITYSCAPES_27
        else:
            assert datasets.CITYSCAPES_27[value] == name

    def test_cityscapes_classes(self):
        names = datasets.CITYSCAPES_27
        assert len(set(names)) == len(names) == NUM_CLASSES
        assert len(split_names(CITYSCAPES_LABELS)) == 34
        assert "license plate" not in names  # the 35th label, whose id, -1, an 8-bit map cannot hold

    def test_unlabelled_is_ignored_by_the_score(self):
        assert UNLABELLED in IGNORE


class TestNearestSquare:
    @given(height=st.integers(1, 70), width=st.integers(1, 70), power=st.integers(0, 7))
    def test_is_pils_nearest_neighbour(self, height, width, power):
        # at powers of two PIL's steps are exact, too
        values = np.random.default_rng(height * width).integers(0, 256, (height, width)).astype(np.uint8)
        side, size = min(height, width), 2**power
        left, top = (width - side) // 2, (height - side) // 2
        cropped = Image.fromarray(values).crop((left, top, left + side, top + side))
        expected = np.asarray(cropped.resize((size, size), Image.Resampling.NEAREST))
        assert np.array_equal(nearest_square(values, size), expected)

    def test_by_hand(self):
        # the centre of the middle of three pixels over two lies on the border: the right one has it
        assert nearest_square(np.array([[1, 2], [3, 4]], np.uint8), 3).tolist() == [[1, 2, 2], [3, 4, 4], [3, 4, 4]]
        assert nearest_square(np.array([[9, 1, 2, 9, 9], [9, 3, 4, 9, 9]], np.uint8), 2).tolist() == [[1, 2], [3, 4]]


class TestPocket:
    def test_items_are_scenes(self):
        data = open_dataset("pocket")
        assert data.classes == CLASSES and len(data.classes) == NUM_CLASSES
        first = next(iter(data))
        drawn, sample = scene(1_000_000, 64), first.read(64)
        assert first.name == "1000000"
        assert np.array_equal(sample.truth, drawn.labels)
        assert sample.image.tobytes() == drawn.image.tobytes()

    def test_splits_share_no_scene(self):
        tune, val = (open_dataset("pocket", split=split) for split in ("tune", "val"))
        assert (len(tune), len(val)) == (180, 100)
        assert not {item.seed for item in tune} & {item.seed for item in val}
        assert all(900_000 <= item.seed < 1_000_000 for item in tune)
        assert all(1_000_000 <= item.seed < 2_000_000 for item in val)


class TestCoco:
    @pytest.mark.parametrize(
        ("images", "truths", "listing"),
        [
            ("images/val2017", "annotations/val2017", "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt"),
            ("val2017", "stuffthingmaps/val2017", "Coco164kFull_Stuff_Coarse_7.txt"),
            ("val2017", "annotation_val2017", "Coco164kFull_Stuff_Coarse_7.txt"),  # as the released code wants it
            ("val2017", "val2017", "Coco164kFull_Stuff_Coarse_7.txt"),  # both archives unpacked into one folder
        ],
    )
    def test_layouts(self, tmp_path, images, truths, listing):
        write_coco(tmp_path, [(40, 60), (50, 30)], images, truths, listing)
        data = open_dataset("cocostuff27", tmp_path)
        assert [item.name for item in data] == ["000000000139", "000000000140"]
        assert all(item.read(32).truth.shape == (32, 32) for item in data)

    @pytest.mark.parametrize("shape", [(427, 640), (640, 480), (33, 33)])
    def test_truth_and_picture(self, tmp_path, shape):
        ((image, truth),) = write_coco(tmp_path, [shape])
        sample = next(iter(open_dataset("cocostuff27", tmp_path))).read(512)
        names, values = list(COCO_STUFF_27), square(truth, 512)
        # pixel by pixel: the class whose group holds the value
        group_of = {value: names.index(name) for name, group in COCO_STUFF_27.items() for value in group} | {255: 255}
        assert np.array_equal(sample.truth, np.vectorize(group_of.get)(values))
        assert sample.image.tobytes() == read_image(image, 512).tobytes()

    def test_a_turn_noted_in_exif_is_not_made(self, tmp_path):
        ((image, _),) = write_coco(tmp_path, [(40, 60)])
        pixels = Image.open(image).copy()
        exif = pixels.getexif()
        exif[0x0112] = 6  # "turn by a quarter"
        pixels.save(image, exif=exif)
        sample = next(iter(open_dataset("cocostuff27", tmp_path))).read(40)
        assert sample.image.tobytes() == read_image(np.asarray(Image.open(image)), 40).tobytes()
        assert sample.image.tobytes() != read_image(image, 40).tobytes()

    def test_a_list_of_ones_own(self, tmp_path):
        write_coco(tmp_path, [(20, 20)] * 3)
        (tmp_path / "mine.txt").write_text("\n000000000141.jpg\n000000000139\n")
        data = open_dataset("cocostuff27", tmp_path, listing=tmp_path / "mine.txt")
        assert [item.name for item in data] == ["000000000141", "000000000139"]

    def test_a_list_that_repeats_itself(self, tmp_path):
        write_coco(tmp_path, [(20, 20)])
        for text, message in (("", "names 0 images"), ("1\n1\n", "names 2 images, 1 of them different")):
            (tmp_path / "mine.txt").write_text(text)
            with pytest.raises(ValueError, match=message):
                open_dataset("cocostuff27", tmp_path, listing=tmp_path / "mine.txt")

    def test_without_the_list(self, tmp_path):
        write_coco(tmp_path, [(20, 20)], listing="elsewhere.txt")
        with pytest.raises(FileNotFoundError, match="curated/val2017/Coco.* PiCIE"):
            open_dataset("cocostuff27", tmp_path)
        with pytest.raises(FileNotFoundError, match="listing=.*gone.txt' is not a file"):
            open_dataset("cocostuff27", tmp_path, listing=tmp_path / "gone.txt")

    def test_without_the_archives(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no jpg files in .*images/val2017 or .*Unpack COCO's val2017.zip"):
            open_dataset("cocostuff27", tmp_path)
        ((_, truth),) = write_coco(tmp_path, [(20, 20)])
        truth.unlink()
        with pytest.raises(FileNotFoundError, match="no png files in .*annotations/val2017"):
            open_dataset("cocostuff27", tmp_path)

    def test_tuning_takes_training_images(self, tmp_path):
        write_coco(
            tmp_path,
            [(20, 20)] * 2,
            "images/train2017",
            "annotations/train2017",
            "curated/train2017/Coco164kFull_Stuff_Coarse_7.txt",
        )
        data = open_dataset("cocostuff27", tmp_path, split="tune")
        assert len(data) == 2 and "train2017" in str(data.items[0].image)

    def test_the_list_of_the_validation_images_is_not_taken_for_tuning(self, tmp_path):
        write_coco(tmp_path, [(9, 9)], "train2017", "annotations/train2017", "Coco164kFull_Stuff_Coarse_7.txt")
        with pytest.raises(FileNotFoundError, match="curated/train2017"):
            open_dataset("cocostuff27", tmp_path, split="tune")


class TestCityscapes:
    def test_truth_and_picture(self, tmp_path):
        files = write_cityscapes(tmp_path, 4, height=64, width=128)
        data = open_dataset("cityscapes", tmp_path)
        names = [image.name.removesuffix("_leftImg8bit.png") for image, _ in files]
        assert [item.name for item in data] == names
        for item, (image, truth) in zip(data, files):
            sample = item.read(32)
            values = square(truth, 32).astype(int)
            assert np.array_equal(sample.truth, np.where(values < 7, 255, values - 7))
            assert sample.image.tobytes() == read_image(image, 32).tobytes()

    def test_without_the_archive(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no png files in .*leftImg8bit/val.*Unpack leftImg8bit_trainvalte"):
            open_dataset("cityscapes", tmp_path)

    def test_tuning_images_are_spread_over_the_training_split(self, tmp_path):
        folder = tmp_path / "leftImg8bit" / "train" / "aachen"
        folder.mkdir(parents=True)
        names = [f"aachen_{index:06}_000019" for index in range(401)]
        for name in names:
            (folder / f"{name}_leftImg8bit.png").touch()
        chosen = [item.name for item in open_dataset("cityscapes", tmp_path, split="tune")]
        assert len(set(chosen)) == len(chosen) == 180
        assert chosen == sorted(chosen) and (chosen[0], chosen[-1]) == (names[0], names[-1])
        gaps = np.diff([names.index(name) for name in chosen])
        assert set(gaps.tolist()) == {2, 3}

    def test_only_the_benchmarks_size_is_without_a_warning(self, tmp_path):
        folder = tmp_path / "leftImg8bit" / "val" / "lindau"
        folder.mkdir(parents=True)
        for index in range(499):
            (folder / f"lindau_{index:06}_000019_leftImg8bit.png").touch()
        with pytest.warns(UserWarning, match="has 499 images here; the benchmark has 500"):
            open_dataset("cityscapes", tmp_path)
        (folder / "lindau_000499_000019_leftImg8bit.png").touch()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            open_dataset("cityscapes", tmp_path)


def damage(path):
    path.write_bytes(path.read_bytes()[:-50])


def repaint(path, value):
    array = np.asarray(Image.open(path)).copy()
    array[0, 0] = value
    Image.fromarray(array).save(path)


class TestUnusable:
    @pytest.fixture
    def files(self, tmp_path):
        ((image, truth),) = write_coco(tmp_path, [(40, 60)])
        return image, truth

    def read(self, root):
        return next(iter(open_dataset("cocostuff27", root))).read(32)

    def test_missing(self, tmp_path, files):
        image, truth = files
        item = next(iter(open_dataset("cocostuff27", tmp_path)))
        truth.unlink()
        with pytest.raises(UnusableImage, match="139.png is missing. Unpack"):
            item.read(32)
        image.unlink()
        with pytest.raises(UnusableImage, match="139.jpg is missing. Unpack"):
            item.read(32)

    @pytest.mark.parametrize("which", [0, 1])
    def test_damaged(self, tmp_path, files, which):
        damage(files[which])
        with pytest.raises(UnusableImage, match=f"{files[which].name} cannot be read as an image .*Unpack"):
            self.read(tmp_path)

    def test_not_an_image(self, tmp_path, files):
        files[0].write_text("404: Not Found")
        with pytest.raises(UnusableImage, match="139.jpg cannot be read as an image"):
            self.read(tmp_path)

    def test_sizes_that_differ(self, tmp_path, files):
        Image.new("L", (60, 41)).save(files[1])
        with pytest.raises(UnusableImage, match="139.jpg is 60x40 pixels and its truth .*139.png 60x41"):
            self.read(tmp_path)

    def test_a_truth_in_colours(self, tmp_path, files):
        Image.open(files[1]).convert("RGB").save(files[1])
        with pytest.raises(UnusableImage, match="139.png is an image of mode RGB"):
            self.read(tmp_path)

    def test_a_truth_with_a_palette_is_one_of_numbers(self, tmp_path, files):
        before = self.read(tmp_path)
        paletted = Image.open(files[1]).convert("P")
        assert np.array_equal(np.asarray(paletted), np.asarray(Image.open(files[1])))
        paletted.save(files[1])
        assert np.array_equal(self.read(tmp_path).truth, before.truth)

    @pytest.mark.parametrize("value", [182, 254])
    def test_values_that_coco_does_not_have(self, tmp_path, files, value):
        repaint(files[1], value)  # in a corner that the crop leaves out: the file is wrong all the same
        with pytest.raises(UnusableImage, match=rf"139.png holds the values \[{value}\], which cocostuff27"):
            self.read(tmp_path)

    @pytest.mark.parametrize("value", [34, 255])
    def test_values_that_cityscapes_does_not_have(self, tmp_path, value):
        ((_, truth),) = write_cityscapes(tmp_path, 1)
        repaint(truth, value)
        with pytest.raises(UnusableImage, match=rf"labelIds.png holds the values \[{value}\].*not labelTrainIds"):
            next(iter(open_dataset("cityscapes", tmp_path))).read(32)


class TestArguments:
    def test_names(self, tmp_path):
        with pytest.raises(ValueError, match="name='imagenet' must be one of pocket, cocostuff27, cityscapes"):
            open_dataset("imagenet")
        with pytest.raises(ValueError, match="split='test' must be one of tune, val"):
            open_dataset("pocket", split="test")
        for name in datasets.DATASETS[1:]:
            with pytest.raises(ValueError, match=f"root=None: {name} is not part of the suite. (Unpack|Put|Pass)"):
                open_dataset(name)

    def test_limit(self):
        data = open_dataset("pocket")
        assert [item.name for item in data.head(2)] == ["1000000", "1000001"]
        assert len(data.head(None)) == len(data.head(1000)) == len(data)
        with pytest.raises(ValueError, match="limit=0 must be at least 1; leave it out to take all 100 images"):
            data.head(0)

    def test_items_can_be_sent_away(self, tmp_path, monkeypatch):
        write_cityscapes(tmp_path, 1)
        monkeypatch.chdir(tmp_path.parent)
        item = next(iter(open_dataset("cityscapes", tmp_path.name)))
        monkeypatch.chdir("/")  # where a worker may well be
        sent = pickle.loads(pickle.dumps(item))
        assert sent == item
        assert np.array_equal(sent.read(16).truth, item.read(16).truth)
        assert len(pickle.dumps(item)) < 1000

    def test_truths_without_the_unusable(self, tmp_path):
        files = write_coco(tmp_path, [(10, 10)] * 3)
        data = open_dataset("cocostuff27", tmp_path)
        expected = [item.read(10).truth for item in data]
        assert np.array_equal(list(read_truths(data, 10)), expected)
        files[1][1].unlink()
        assert np.array_equal(list(read_truths(data, 10)), [expected[0], expected[2]])
