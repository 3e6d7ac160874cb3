"""Evaluation runs with a tiny model: the same scores however often a run is cut short, and whoever does the work."""

import errno
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers_datasets import DeadlyItem, write_cityscapes
from helpers_evaluate import SIZE, THRESHOLDS, one_thread, run, write_model
from helpers_faults import files_no_larger_than
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.cluster import DBSCAN, KMeans
from transformers import ViTConfig, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from diffseg import DiffSegPipeline
from diffseg.datasets import Dataset, open_dataset
from diffseg.dino import DinoSegPipeline
from diffseg.evaluate import ATTENTION, METHODS, Method, Report, Results, Tally, evaluate, register
from diffseg.evaluate.__main__ import main, parse_method
from diffseg.evaluate.counting import make_row, schema
from diffseg.exits import DONE, FAILED, STOPPED, WRONG
from diffseg.files import LOCK
from diffseg.masks import suppress
from diffseg.merging import merge
from diffseg.metrics import PROTOCOLS, SegmentationScore

IMAGES = 12
SPEC = "diffseg=" + ",".join(map(str, THRESHOLDS))
PATIENCE = 120  # seconds for a process to load torch on a busy machine

pytestmark = pytest.mark.filterwarnings("ignore:.*the benchmark has")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cityscapes")
    write_cityscapes(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def data(root):
    return open_dataset("cityscapes", root)


@pytest.fixture(scope="module")
def reference(data, model, tmp_path_factory):
    """A run that nothing disturbed, on one thread as the workers of Dask have it: its folder and its scores."""
    out = tmp_path_factory.mktemp("out") / "reference.parquet"
    with one_thread():
        report = run(data, model, out)
    assert report.unusable == {} and len(report.scores) == len(THRESHOLDS) * len(PROTOCOLS)
    return out, report.scores


@pytest.fixture(autouse=True)
def threads():
    """The reference has one."""
    with one_thread():
        yield


def arguments(root, model, out, *more):
    fixed = ["--dataset", "cityscapes", "--root", root, "--model", model, "--size", SIZE, "--out", out]
    return [str(argument) for argument in (*fixed, "--method", SPEC, *more)]


def rows(out):
    return pq.read_table(out).sort_by([("image", "ascending"), ("setting", "ascending")]).to_pylist()


def names(out):
    return sorted(path.stem for path in out.glob("*.parquet"))


@pytest.fixture
def encoded(monkeypatch):
    """The images that went through the UNet, as bytes."""
    seen, attend = [], DiffSegPipeline.attend

    def counted(self, image, *args, **kwargs):
        seen.append(image.tobytes())
        return attend(self, image, *args, **kwargs)

    monkeypatch.setattr(DiffSegPipeline, "attend", counted)
    return seen


class TestScores:
    def test_are_those_of_a_plain_loop(self, data, model, tmp_path):
        pipe, few = DiffSegPipeline.from_pretrained(model), data.head(3)
        scores = run(few, model, tmp_path / "out").scores.set_index(["setting", "protocol"])
        for threshold in THRESHOLDS:
            expected = {protocol: SegmentationScore(protocol=protocol) for protocol in PROTOCOLS}
            for item in few:
                sample = item.read(SIZE)
                labels = pipe(sample.image, threshold=threshold, size=SIZE).labels
                for score in expected.values():
                    score.update(labels, sample.truth)
            for protocol, score in expected.items():
                line = scores.loc[threshold, protocol]
                assert (line.method, line.images) == ("diffseg", len(few))
                assert (line.accuracy, line.miou) == (score.compute().accuracy, score.compute().miou)

    def test_settings_make_a_difference(self, reference):
        segments = pd.read_parquet(reference[0]).groupby("setting").segments.mean()
        assert segments.is_monotonic_decreasing and segments.iloc[0] > 27 > segments.iloc[-1] > 1

    def test_a_method_without_settings_uses_the_models_threshold(self, data, model, tmp_path, reference):
        report = run(data, model, tmp_path / "out", {"diffseg": None})
        own = reference[1].query("setting == 0.001").reset_index(drop=True)
        pd.testing.assert_frame_equal(report.scores, own)  # as a number, so that another threshold is another row

    @settings(max_examples=30, deadline=None)
    @given(
        seed=st.integers(0, 1000),
        images=st.integers(1, 6),
        values=st.lists(st.sampled_from([None, 0.5, 1.0]), min_size=1, unique=True),
    )
    def test_rows_add_up_in_any_order(self, seed, images, values):
        rng = np.random.default_rng(seed)
        whole = {
            (setting, protocol): SegmentationScore(protocol=protocol) for setting in values for protocol in PROTOCOLS
        }
        parts = []
        for image in range(images):
            truth = rng.choice([*range(27), 255, -1], (7, 7))
            for setting in values:
                labels = rng.integers(0, rng.integers(1, 40), (7, 7))
                parts.append(make_row(str(image), ("m", setting), labels, truth, 27))
                for protocol in PROTOCOLS:
                    whole[setting, protocol].update(labels, truth)
        report = report_of([parts[index] for index in rng.permutation(len(parts))])
        lines = list(report.scores.itertuples())
        assert len(lines) == len(whole)
        for line in lines:
            expected = whole[None if np.isnan(line.setting) else line.setting, line.protocol].compute()
            np.testing.assert_equal((line.accuracy, line.miou), (expected.accuracy, expected.miou))
            assert line.images == images

    def test_an_image_without_labels_counts_nowhere(self):
        truth = np.full((4, 4), 255)
        row = make_row("dark", ("m", None), np.zeros((4, 4), int), truth, 27)
        assert np.isnan([row["accuracy"], row["miou"], row["boundary"]]).all()
        known = make_row("lit", ("m", None), np.zeros((4, 4), int), np.zeros((4, 4), int), 27)
        assert (known["accuracy"], known["miou"], known["boundary"]) == (1, 1, 1)
        assert report_of([row, known]).scores.accuracy.tolist() == [1, 1]

    def test_running_score_names_the_best(self):
        tally = Tally(27)
        assert tally.best() == ""
        truth = np.repeat([[0, 1]], 2, axis=0)
        tally.add(make_row("a", ("coarse", 0.5), np.zeros((2, 2), int), truth, 27))
        assert tally.best() == "coarse=0.5: ACC 0.500, mIoU 0.250"
        tally.add(make_row("a", ("fine", None), truth, truth, 27))
        assert tally.best() == "fine: ACC 1.000, mIoU 1.000"


def report_of(parts):
    """A report of rows, as they come back from the disk."""
    frame = pa.Table.from_pylist(parts, schema=schema()).to_pandas()
    keys = list(dict.fromkeys((row["method"], row["setting"]) for row in parts))
    data = Dataset("made up", "val", tuple(map(str, range(27))), ())
    return Report(frame, data, keys, PROTOCOLS, {}, {})


def upsampled(ids, side):
    """Every pixel's group: the memberships of the places of a grid are upsampled, the largest wins."""
    members = np.stack([ids.reshape(side, side) == value for value in np.unique(ids)])[None].astype(np.float32)
    return compact(
        torch.nn.functional.interpolate(torch.from_numpy(members), (SIZE, SIZE), mode="bilinear")[0].argmax(0)
    )


def compact(labels):
    """Labels 0, 1, ... without gaps: the paper's protocol gives ties to lower ones."""
    return labels.unique(return_inverse=True)[1]


def present(sample):
    """How many classes a truth shows."""
    return len(set(sample.truth.ravel().tolist()) - {255})


class TestMethods:
    """Each against what it is said to be, written out with scikit-learn or from the parts of merging."""

    def check(self, data, model, out, spec, segment):
        report = run(data, model, out, spec)
        expected = {protocol: SegmentationScore(protocol=protocol) for protocol in PROTOCOLS}
        for item in data:
            sample = item.read(SIZE)
            for score in expected.values():
                score.update(segment(sample), sample.truth)
        assert report.scores.protocol.tolist() == ["clean", "paper"]
        for line in report.scores.itertuples():
            result = expected[line.protocol].compute()
            assert (line.images, line.accuracy, line.miou) == (len(data), result.accuracy, result.miou)
        return report.scores.setting.iloc[0]

    @pytest.fixture
    def few(self, data):
        return data.head(3)

    @pytest.fixture
    def points(self, model):
        """The attention of a picture, one map in a row."""
        pipe = DiffSegPipeline.from_pretrained(model)
        return lambda sample: pipe.attend(sample.image, size=SIZE).flatten(2).flatten(0, 1).numpy()

    @pytest.mark.parametrize("k", [None, 2])
    def test_kmeans_with_one_k_for_all(self, few, model, tmp_path, points, k):
        wanted = round(np.mean([present(item.read(512)) for item in few])) if k is None else k
        settings = None if k is None else (k,)

        def clustered(sample):
            maps = points(sample)
            return upsampled(KMeans(wanted, n_init=1, random_state=0).fit_predict(maps), math.isqrt(len(maps)))

        assert self.check(few, model, tmp_path / "out", {"kmeans-c": settings}, clustered) == wanted > 1

    def test_kmeans_with_the_k_of_each_image(self, few, model, tmp_path, points):
        def told(sample):
            maps = points(sample)
            ids = KMeans(present(sample), n_init=1, random_state=0).fit_predict(maps)
            return upsampled(ids, math.isqrt(len(maps)))

        assert np.isnan(self.check(few, model, tmp_path / "out", {"kmeans-s": None}, told))

    def test_kmeans_on_colours(self, few, model, tmp_path):
        def by_colour(sample):
            whole = sample.image.resize((512, 512), Image.Resampling.LANCZOS)  # as the method takes any picture
            colours = np.asarray(whole.resize((64, 64), Image.Resampling.BOX), dtype=np.float32).reshape(-1, 3)
            return upsampled(KMeans(4, n_init=4, random_state=0).fit_predict(colours), 64)

        assert self.check(few, model, tmp_path / "out", {"kmeans-rgb": (4,)}, by_colour) == 4

    def test_dbscan(self, few, model, tmp_path, points):
        maps = points(few.items[0].read(SIZE))
        eps = float(np.percentile(np.linalg.norm(maps[:, None] - maps, axis=-1), 10))
        noisy = []

        def dense(sample):
            maps = points(sample)
            found = DBSCAN(eps=eps).fit(maps)
            cores = found.core_sample_indices_
            ids = found.labels_.copy()
            for place in np.flatnonzero(ids < 0):
                nearest = cores[np.linalg.norm(maps[cores] - maps[place], axis=1).argmin()]
                ids[place] = found.labels_[nearest]
                noisy.append(place)
            return upsampled(ids, math.isqrt(len(maps)))

        self.check(few, model, tmp_path / "out", {"dbscan": (eps,)}, dense)
        assert noisy, "there was no noise, so it is untested where it goes"
        with pytest.raises(ValueError, match="dbscan has no eps of its own; give values to try"):
            run(few, model, tmp_path / "out", {"dbscan": None})

    def test_dinoseg(self, few, model, tmp_path, monkeypatch):
        torch.manual_seed(0)
        vit = ViTConfig(
            image_size=112,
            patch_size=8,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.4,
        )
        processor = ViTImageProcessorPil(size={"height": 112, "width": 112})
        dino = DinoSegPipeline(ViTModel(vit, add_pooling_layer=False), processor, threshold=0.05)
        dino.save_pretrained(tmp_path / "dino")
        monkeypatch.setattr("diffseg.evaluate.methods.DINO", str(tmp_path / "dino"))
        plain = ViTModel.from_pretrained(tmp_path / "dino", add_pooling_layer=False, attn_implementation="eager")

        def merged(sample):
            larger = sample.image.resize((112, 112), Image.Resampling.LANCZOS)
            with torch.no_grad():
                layers = plain(**processor(images=larger, return_tensors="pt"), output_attentions=True).attentions
            patches = torch.cat(layers).mean(dim=(0, 1))[1:, 1:]  # all layers, all heads, without the class token
            maps = (patches / patches.sum(dim=1, keepdim=True)).reshape(14, 14, 14, 14)
            labels = compact(suppress(merge(maps, 14, 3, 0.05), SIZE))
            assert labels.max() > 1
            return labels

        self.check(few, model, tmp_path / "out", {"dinoseg": None}, merged)

    def test_all_that_use_the_attention_share_it(self, few, model, tmp_path, encoded):
        wanted = {"diffseg": THRESHOLDS, "kmeans-c": (3,), "kmeans-s": None, "dbscan": (0.01,), "kmeans-rgb": None}
        report = run(few, model, tmp_path / "out", wanted)
        assert len(encoded) == len(few)
        assert len(report.scores) == len(PROTOCOLS) * (len(THRESHOLDS) + 4)


class TestWork:
    def test_each_image_is_encoded_once(self, data, model, tmp_path, encoded, monkeypatch):
        def halves(pipe, attention, sample, settings):
            for setting in settings:
                yield np.arange(SIZE**2).reshape(SIZE, SIZE) // int(setting * SIZE**2)

        monkeypatch.setitem(METHODS, "halves", Method(ATTENTION, halves, lambda data: (0.5, 0.25)))
        report = run(data, model, tmp_path / "out", {"diffseg": THRESHOLDS, "halves": None})
        assert len(encoded) == len(set(encoded)) == IMAGES
        assert report.scores.query("method == 'halves'").setting.unique().tolist() == [0.25, 0.5]
        segments = pd.read_parquet(tmp_path / "out").query("method == 'halves'").groupby("setting").segments.unique()
        assert [segments[0.5].tolist(), segments[0.25].tolist()] == [[2], [4]]

    def test_more_images_and_settings_can_be_added(self, data, model, tmp_path, encoded, reference):
        out = tmp_path / "out"
        first = run(data.head(5), model, out, {"diffseg": THRESHOLDS[:1]})
        assert set(first.scores.images) == {5} and len(encoded) == 5
        run(data, model, out, {"diffseg": THRESHOLDS[:1]})
        assert len(encoded) == IMAGES  # the five were not done again
        report = run(data, model, out)
        assert len(encoded) == 2 * IMAGES
        assert rows(out) == rows(reference[0])
        pd.testing.assert_frame_equal(report.scores, reference[1])
        again = run(data.head(5), model, out, {"diffseg": THRESHOLDS[:1]})
        assert len(encoded) == 2 * IMAGES
        pd.testing.assert_frame_equal(again.scores, first.scores)  # of what was asked for, not of all that is there

    def test_pandas_reads_the_folder(self, data, reference):
        frame = pd.read_parquet(reference[0])
        assert len(frame) == IMAGES * len(THRESHOLDS)
        assert sorted(frame.image.unique()) == [item.name for item in data]
        counts = np.stack(frame.actual)
        assert counts.shape == (len(frame), 27) and (counts.sum(axis=1) <= SIZE**2).all()
        accuracy = np.stack(frame.hits_clean).sum(axis=1) / counts.sum(axis=1)
        assert accuracy == pytest.approx(frame.accuracy)

    def test_the_command(self, root, model, tmp_path, reference, capsys):
        assert main(arguments(root, model, tmp_path / "out")) == DONE
        printed = capsys.readouterr()
        assert "not scored" not in printed.err
        lines = [line.split() for line in printed.out.splitlines()]
        assert lines[0] == ["method", "setting", "protocol", "images", "accuracy", "miou", "boundary"]
        for line, row in zip(lines[1:], reference[1].itertuples()):
            expected = [row.method, f"{row.setting:g}", row.protocol, str(row.images)]
            for name in ("accuracy", "miou", "boundary"):
                ends = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
                expected += [f"{getattr(row, name):.4f}", f"[{ends[0]:.3f},", f"{ends[1]:.3f}]"]
            assert line == expected
        policies = lines[1 + len(reference[1]) :]
        assert policies[0][0] == "[low," and [line[0] for line in policies[1:]] == ["paper:", "clean:"]
        told = printed.err.splitlines()
        assert told[0].startswith("diffusion model: ") and len(told[0].split()[-1]) == 12
        assert told[1] == f"diffseg=0.001: 0 images from {tmp_path / 'out'}, {IMAGES} to compute"

    def test_tables_and_a_comparison(self, root, model, tmp_path, capsys):
        pair = [f"diffseg={THRESHOLDS[0]:g}", f"diffseg={THRESHOLDS[2]:g}"]
        options = ["--limit", 2, "--tables", tmp_path / "tables", "--protocol", "clean", "--compare", *pair]
        assert main(arguments(root, model, tmp_path / "out", *options)) == DONE
        printed = capsys.readouterr().out
        report = run(open_dataset("cityscapes", root).head(2), model, tmp_path / "out", protocols=("clean",))
        for name in ("scores", "classes", "sizes", "images"):
            written = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
            pd.testing.assert_frame_equal(written, getattr(report, name), check_dtype=False)
        assert f"{pair[0]} minus {pair[1]}, on the same images:" in printed
        row = report.compare(*pair).query("score == 'miou'").iloc[0]
        assert ["clean", "miou", "2", f"{row.difference:+.4f}"] in [line.split()[:4] for line in printed.splitlines()]

    def test_pocket_scenes_need_no_folder(self, model, tmp_path, capsys):
        given = ["--limit", "1", "--model", str(model), "--size", str(SIZE), "--out", str(tmp_path / "out")]
        assert main(given) == DONE
        assert names(tmp_path / "out") == ["1000000"]


@pytest.mark.slow
class TestCutShort:
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for other processes")
    @pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
    def test_a_stopped_run_goes_on(self, root, data, model, tmp_path, encoded, reference, how):
        out = tmp_path / "out"
        command = [sys.executable, "-m", "diffseg.evaluate", *arguments(root, model, out)]
        # What is started in the background ignores Ctrl-C, and hands that on to all that it starts: these tests, too.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heed
        ) as process:
            wait_for_images(out, 1)
            process.send_signal(signal.Signals[how])
            printed = process.communicate()[1]
        assert process.returncode == (STOPPED if how == "SIGINT" else -signal.SIGKILL), printed
        assert how == "SIGKILL" or "the same command goes on from there" in printed
        done = names(out)
        assert 0 < len(done) < IMAGES
        kept = {name: (out / f"{name}.parquet").stat().st_mtime_ns for name in done}

        report = run(data, model, out)
        assert len(encoded) == IMAGES - len(done)
        assert all((out / f"{name}.parquet").stat().st_mtime_ns == when for name, when in kept.items())
        assert rows(out) == rows(reference[0])
        pd.testing.assert_frame_equal(report.scores, reference[1])

    def test_a_broken_image_holds_nobody_up(self, data, model, tmp_path, encoded, reference, capsys):
        root, out = tmp_path / "root", tmp_path / "out"
        files = write_cityscapes(root, IMAGES)  # the same as those of the reference
        whole = files[3][0].read_bytes()
        files[3][0].write_bytes(whole[: len(whole) // 2])
        missing = files[7][1].read_bytes()
        files[7][1].unlink()
        assert main(arguments(root, model, out)) == FAILED
        printed = capsys.readouterr()
        assert f"not scored: {files[3][0]} cannot be read as an image" in printed.err
        assert f"not scored: {files[7][1]} is missing" in printed.err
        assert f"2 of {IMAGES} images are not in these scores" in printed.err
        assert len(names(out)) == len(encoded) == IMAGES - 2

        files[3][0].write_bytes(whole)
        files[7][1].write_bytes(missing)
        assert main(arguments(root, model, out)) == DONE
        assert len(encoded) == IMAGES
        assert rows(out) == rows(reference[0])

    def test_a_full_disk(self, data, model, tmp_path, encoded, reference):
        out = tmp_path / "out"
        run(data.head(4), model, out)
        before = rows(out)
        with files_no_larger_than(1000), pytest.raises(OSError, match="Make room .*the images that were done are kept"):
            run(data, model, out)
        assert rows(out) == before
        assert sorted(path.name for path in out.iterdir()) == [LOCK, *(f"{name}.parquet" for name in names(out))]
        report = run(data, model, out)
        assert len(encoded) == IMAGES + 1  # the one that could not be written
        assert rows(out) == rows(reference[0])
        pd.testing.assert_frame_equal(report.scores, reference[1])

    def test_a_write_that_was_cut_short_is_not_seen(self, data, model, tmp_path, reference):
        out = tmp_path / "out"
        run(data.head(2), model, out)
        name = data.items[2].name
        (out / f".{name}.123.tmp").write_bytes(b"PAR1 and then the light went out")
        assert len(pd.read_parquet(out)) == 2 * len(THRESHOLDS)
        run(data, model, out)
        assert rows(out) == rows(reference[0])


def wait_for_images(out, count):
    deadline = time.monotonic() + PATIENCE
    while len(names(out)) < count:
        assert time.monotonic() < deadline, f"{out} has {names(out)} after {PATIENCE} s"
        time.sleep(0.002)


class TestErrors:
    def test_results_of_something_else_are_not_mixed_in(self, data, model, tmp_path):
        out = tmp_path / "out"
        run(data.head(1), model, out)
        with pytest.raises(ValueError, match=r"parquet was made with size 64 \(this run has 32\): .*Give another out="):
            evaluate(data, {"diffseg": (0.1,)}, out, model, 32)
        trained = DiffSegPipeline.from_pretrained(model)
        trained.unet.conv_in.bias.data += 1
        trained.save_pretrained(tmp_path / model.name)
        with pytest.raises(
            ValueError, match="was made with the model diffusion [0-9a-f]{12} .this run has [0-9a-f]{12}"
        ):
            run(data, tmp_path / model.name, out)

    @pytest.mark.parametrize("content", [b"", b"PAR1 is how it starts", "a table"])
    def test_a_damaged_result_is_named(self, data, model, tmp_path, content):
        out = tmp_path / "out"
        out.mkdir()
        file = out / "frankfurt_000000_000019.parquet"
        file.write_bytes(content) if isinstance(content, bytes) else pd.DataFrame({"a": [1]}).to_parquet(file)
        with pytest.raises(ValueError, match="000019.parquet is damaged or not a result .*Delete it"):
            run(data, model, out)

    def test_a_file_in_the_folders_place(self, data, model, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(ValueError, match="out=.*out' is a file; results are a folder"):
            run(data, model, tmp_path / "out")
        assert (tmp_path / "out").read_text() == "mine"

    def test_methods(self, data, model, tmp_path):
        with pytest.raises(ValueError, match="method 'sam' must be one of diffseg"):
            run(data, model, tmp_path / "out", {"sam": None})
        assert not (tmp_path / "out").exists()
        for name in ("diffseg", "", "a=b", "a,b", "a b"):
            with pytest.raises(ValueError, match=f"name={name!r} must be new"):
                register(name, METHODS["diffseg"])

    def test_registered_methods_are_found(self, monkeypatch):
        monkeypatch.setattr("diffseg.evaluate.methods.METHODS", {})
        register("mine", METHODS["diffseg"])
        with pytest.raises(ValueError, match="name='mine' must be new .there are mine."):
            register("mine", METHODS["diffseg"])

    def test_what_a_method_objects_to(self, root, model, tmp_path, capsys):
        given = arguments(root, model, tmp_path / "out")
        given[given.index(SPEC)] = "diffseg=-1"
        assert main(given) == WRONG
        assert "error: threshold=-1.0 must be above 0" in capsys.readouterr().err

    def test_the_command_names_what_is_wrong(self, model, tmp_path, capsys):
        assert main(["--dataset", "cityscapes", "--root", str(tmp_path), "--model", str(model)]) == WRONG
        assert "error: root=" in capsys.readouterr().err

    def test_methods_on_the_command_line(self, capsys):
        assert parse_method("diffseg") == ("diffseg", None)
        assert parse_method("diffseg=0.9,1.1") == ("diffseg", (0.9, 1.1))
        for text in ("diffseg=", "diffseg=a", "diffseg=1,"):
            with pytest.raises(SystemExit):
                main(["--method", text])
            assert "must look like diffseg=0.9,1.1" in capsys.readouterr().err

    def test_a_method_named_twice(self, capsys):
        assert main(["--method", "diffseg", "kmeans-s", "diffseg=0.2"]) == WRONG
        assert "error: method diffseg is named twice; give all its settings at once" in capsys.readouterr().err

    def test_without_dask(self, data, model, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(ImportError, match=r"scheduler='local:2' needs Dask: pip install 'diffseg\[cluster\]'"):
            run(data, model, tmp_path / "out", scheduler="local:2")

    def test_without_pyarrow(self, data, model, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r"need pyarrow: pip install 'diffseg\[evaluate\]'"):
            run(data, model, tmp_path / "out")

    def test_an_error_of_the_operating_system_keeps_its_number(self, tmp_path):
        results = Results(tmp_path / "out", {}, {}, {})
        with files_no_larger_than(10), pytest.raises(OSError) as caught:
            results.add("a", [make_row("a", ("m", None), np.zeros((2, 2), int), np.zeros((2, 2), int), 27)])
        assert caught.value.errno == errno.EFBIG
        assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture(scope="module")
def dask():
    pytest.importorskip("distributed", reason="needs Dask, of the extra 'cluster'")
    return pytest.importorskip("dask")


@contextmanager
def local_cluster(workers):
    from distributed import LocalCluster

    with LocalCluster(workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster(dask):
    with local_cluster(2) as started:
        yield started


@pytest.mark.slow
@pytest.mark.usefixtures("dask")
class TestCluster:
    """The same on several processes. The first start of each takes as long as it takes to load torch."""

    def test_a_local_process(self, root, data, model, tmp_path, reference):
        out = tmp_path / "out"
        assert main(arguments(root, model, out, "--scheduler", "local:1")) == DONE
        assert rows(out) == rows(reference[0])

    def test_a_lost_worker_is_replaced(self, data, model, tmp_path, reference, cluster):
        import psutil  # comes with distributed

        out, done = tmp_path / "out", []

        def kill():
            wait_for_images(out, 1)
            psutil.Process(cluster.workers[0].pid).kill()
            done.extend(names(out))

        first = cluster.workers[0].pid
        killer = threading.Thread(target=kill)
        killer.start()
        report = run(data, model, out, scheduler=cluster.scheduler_address)
        killer.join()
        assert 0 < len(done) < IMAGES
        assert cluster.workers[0].pid != first
        assert report.unusable == {}
        assert rows(out) == rows(reference[0])
        pd.testing.assert_frame_equal(report.scores, reference[1])

    def test_broken_images_come_back_as_such(self, model, tmp_path, cluster):
        files = write_cityscapes(tmp_path / "root", 3)
        Image.new("L", (5, 5)).save(files[1][1])
        data = open_dataset("cityscapes", tmp_path / "root")
        report = run(data, model, tmp_path / "out", scheduler=cluster.scheduler_address)
        ((name, reason),) = report.unusable.items()
        assert name == data.items[1].name and "is 96x48 pixels and its truth" in reason
        assert set(report.scores.images) == {2}

    def test_an_image_that_kills_its_workers(self, model, tmp_path, dask):
        data = Dataset("cityscapes", "val", ("a",), (DeadlyItem(),))
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local_cluster(1) as one:
            report = run(data, model, tmp_path / "out", scheduler=one.scheduler_address)
        assert "deadly: several workers died of it" in report.unusable["deadly"]
        assert report.scores.empty

    @pytest.mark.parametrize("scheduler", ["local:", "local:0", "local:two", "local:-1"])
    def test_schedulers(self, data, model, tmp_path, scheduler):
        with pytest.raises(ValueError, match=f"scheduler='{scheduler}' must be local:N with N from 1 on"):
            run(data, model, tmp_path / "out", scheduler=scheduler)
