"""What goes wrong on real machines: power cuts, full disks, read-only folders, damaged files, two commands at once."""

import errno
import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers_evaluate import SIZE, THRESHOLDS, one_thread, run, write_data, write_model
from helpers_faults import small_disk
from PIL import Image

from diffseg.datasets import UnusableImage, open_dataset
from diffseg.evaluate.__main__ import main
from diffseg.exits import WRONG
from diffseg.files import sole_user

IMAGES = 12
KILLS = 20
ONE = {"diffseg": THRESHOLDS[:1]}

pytestmark = pytest.mark.filterwarnings("ignore:.*the benchmark has")


@pytest.fixture(autouse=True)
def threads():
    """The reference has one."""
    with one_thread():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def data(root):
    return open_dataset("cityscapes", root)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def reference(data, model, tmp_path):
    """A run that nothing disturbed."""
    return run(data, model, tmp_path / "reference", device="cpu")


def rows(out):
    table = pq.read_table(out).sort_by([("image", "ascending"), ("setting", "ascending")])
    return table.to_pylist()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_at_random_moments(root, data, model, tmp_path, reference):
    """No row is lost, none is there twice, and the scores are the same."""
    script = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, script, root, model, tmp_path / "out", KILLS, 0]
    environment = os.environ | {"PYTHONPATH": str(script.parent)}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == int(done.stdout)
    for folder in folders:
        assert rows(folder) == rows(tmp_path / "reference")
        pd.testing.assert_frame_equal(run(data, model, folder, device="cpu").scores, reference.scores)
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows gives a killed worker's lock back late")
def test_workers_killed_at_random_moments(data, model, tmp_path, reference):
    """On a local cluster: the images of a lost worker go to others."""
    dask = pytest.importorskip("dask")
    distributed, psutil = pytest.importorskip("distributed"), pytest.importorskip("psutil")
    rng, killed, stop = random.Random(0), [], threading.Event()

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 100}),
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
    ):

        def kill():
            while len(killed) < 3 and not stop.wait(rng.uniform(0.5, 3)):
                victim = rng.choice(list(cluster.workers.values()))
                if victim.pid not in killed and victim.status.name == "running":
                    psutil.Process(victim.pid).kill()
                    killed.append(victim.pid)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            report = run(data, model, tmp_path / "out", scheduler=cluster.scheduler_address, device="cpu")
        finally:
            stop.set()
            killer.join()
    assert killed and not report.unusable
    assert rows(tmp_path / "out") == rows(tmp_path / "reference")
    pd.testing.assert_frame_equal(report.scores, reference.scores)


def test_a_disk_that_is_full(data, model, tmp_path, reference):
    with small_disk(tmp_path / "disk", "120k") as disk:
        with pytest.raises(OSError, match="Make room .*the images that were done are kept") as caught:
            run(data, model, disk / "out", device="cpu")
        assert caught.value.errno == errno.ENOSPC
        kept = rows(disk / "out")
        assert 0 < len(kept) < len(rows(tmp_path / "reference"))
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        report = run(data, model, disk / "out", device="cpu")
        assert rows(disk / "out") == rows(tmp_path / "reference")
        assert not list((disk / "out").glob("*.tmp"))
    pd.testing.assert_frame_equal(report.scores, reference.scores)


def test_a_folder_that_can_only_be_read(data, model, tmp_path):
    with small_disk(tmp_path / "disk", "10m") as disk:
        before = run(data.head(2), model, disk / "out", ONE).scores
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        pd.testing.assert_frame_equal(run(data.head(2), model, disk / "out", ONE).scores, before)
        with pytest.raises(OSError, match="Results cannot be added there; give an out=") as caught:
            run(data.head(3), model, disk / "out", ONE)
        assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError, match="Results cannot be kept there; give an out="):
            run(data.head(2), model, disk / "other", ONE)


def test_a_table_that_was_cut_short(data, model, tmp_path):
    out = tmp_path / "out"
    before = run(data.head(2), model, out, ONE).scores
    file = sorted(out.glob("*.parquet"))[0]
    whole = file.read_bytes()
    for length in np.random.default_rng(0).integers(0, len(whole), 10):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{file.name} is damaged or not a result .*Delete it"):
            run(data.head(2), model, out, ONE)
    file.unlink()
    pd.testing.assert_frame_equal(run(data.head(2), model, out, ONE).scores, before)


def test_two_commands_in_one_folder(root, data, model, tmp_path, capsys):
    out = tmp_path / "out"
    run(data.head(1), model, out, ONE)
    with sole_user(out):
        with pytest.raises(BlockingIOError, match="another command is at work in .*out.*another folder"):
            run(data, model, out, ONE)
        given = ["--dataset", "cityscapes", "--root", root, "--model", model, "--size", SIZE, "--out", out]
        assert main([str(part) for part in given]) == WRONG
        assert "error: another command is at work" in capsys.readouterr().err
    assert len(run(data.head(2), model, out, ONE).rows) == 2  # and the folder is free again


class TestPictures:
    @pytest.fixture
    def some(self, tmp_path):
        return write_data(tmp_path / "some", 3)

    @pytest.mark.parametrize("which", ["image", "truth"])
    def test_a_file_without_a_byte(self, some, model, tmp_path, which):
        file = getattr(some.items[1], which)
        file.write_bytes(b"")
        report = run(some, model, tmp_path / "out", ONE)
        assert list(report.unusable) == [some.items[1].name] and f"{file} cannot be read" in str(report.unusable)
        assert report.scores.images.tolist() == [2, 2]

    def test_a_truth_of_another_size(self, some, model, tmp_path):
        Image.new("L", (5, 7)).save(some.items[1].truth)
        report = run(some, model, tmp_path / "out", ONE)
        assert "96x48 pixels and its truth" in report.unusable[some.items[1].name] and len(report.unusable) == 1

    def test_a_picture_of_16_bits(self, some, model, tmp_path):
        item = some.items[0]
        grey = np.asarray(Image.open(item.image).convert("L"))
        Image.fromarray(grey).save(item.image)
        expected = item.read(SIZE).image
        Image.fromarray(grey.astype(np.uint16) * 257).save(item.image)
        assert Image.open(item.image).mode.startswith("I")
        assert item.read(SIZE).image.tobytes() == expected.tobytes()

    def test_a_truth_of_16_bits_is_no_map_of_labels(self, some):
        Image.fromarray(np.zeros((48, 96), np.uint16)).save(some.items[0].truth)
        with pytest.raises(UnusableImage, match="is an image of mode I;16, not of one 8-bit channel"):
            some.items[0].read(SIZE)

    def test_a_picture_beyond_pillows_limit(self, some, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(UnusableImage, match="cannot be read as an image .*decompression bomb"):
            some.items[0].read(SIZE)

    @pytest.mark.slow
    def test_a_hundred_megapixels(self, some, tmp_path):
        """Reading takes no more memory than the decoded picture, its square, and its truth."""
        pytest.importorskip("resource")
        item = replace(some.items[0], image=tmp_path / "large.jpg", truth=tmp_path / "large.png")
        Image.new("RGB", (10_000, 10_000), "teal").save(item.image)
        Image.new("L", (10_000, 10_000), 7).save(item.truth, compress_level=1)
        script = (
            "import resource, sys, pickle, warnings; warnings.simplefilter('ignore'); import diffseg.datasets\n"
            "item = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "sample = item.read(512)\n"
            "print(sample.truth.min(), sample.truth.max(), sample.image.size)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        import pickle

        command = [sys.executable, "-c", script, pickle.dumps(item).hex()]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert printed[0] == "0 0 (512, 512)"
        unit = 1 if sys.platform == "darwin" else 1024
        assert int(printed[1]) * unit < 1.5e9
