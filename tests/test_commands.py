"""`diffseg segment` with a tiny model: whatever happens to it, the results are those of an undisturbed run."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_evaluate import SIZE, one_thread, write_model
from helpers_faults import small_disk
from helpers_models import tiny_components, tiny_unet
from PIL import Image

from diffseg import DiffSegPipeline
from diffseg.__main__ import main as diffseg
from diffseg.commands.pictures import find_pictures
from diffseg.commands.segment import main
from diffseg.exits import DONE, FAILED, STOPPED, WRONG
from diffseg.files import LOCK, sole_user

PATIENCE = 120  # seconds for a process to load torch on a busy machine
KILLS = 20
#: Names that are hard on one system or another, in two folders.
NAMES = ["a b.png", "sea/one.jpg", "sea/ünï côde 写真.png", "land/one.jpg", "land/CON.png", "land/one.JPG.png"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def threads():
    with one_thread():
        yield


def draw(file, seed, mode="RGB", size=(100, 80)):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    picture = Image.fromarray(np.kron(blocks, np.ones((20, 20, 1), np.uint8))).resize(size).convert(mode)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Never changed by a test; `copy` is there for that."""
    folder = tmp_path_factory.mktemp("my photos")
    for seed, name in enumerate(NAMES):
        draw(folder / name, seed)
    return folder


@pytest.fixture
def copy(photos, tmp_path):
    folder = tmp_path / "copy"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((photos / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def reference(photos, model, tmp_path_factory):
    """An undisturbed run: the folder of its results."""
    out = tmp_path_factory.mktemp("out") / "reference"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert run(photos, out, model) == DONE
    torch.set_num_threads(threads)
    return out


def run(pictures, out, model, *more):
    given = pictures if isinstance(pictures, list) else [pictures]
    return main([str(each) for each in (*given, "--out", out, "--model", model, "--size", SIZE, *more)])


def contents(folder):
    """Name -> bytes of all that a folder holds but the lock."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != LOCK)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def times(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file() and file.name != LOCK}


@pytest.fixture
def passes(monkeypatch):
    """How many pictures went through the model."""
    seen, call = [], DiffSegPipeline.__call__

    def counted(self, image, *args, **kwargs):
        seen.extend(image)
        return call(self, image, *args, **kwargs)

    monkeypatch.setattr(DiffSegPipeline, "__call__", counted)
    return seen


class TestResults:
    def test_are_those_of_the_pipeline(self, photos, model, reference):
        pipe = DiffSegPipeline.from_pretrained(model)
        for name in NAMES:
            written = name.replace("CON", "_CON")
            labels = pipe(photos / name, size=SIZE).at_original()
            with Image.open(reference / f"{written}.labels.png") as picture:
                assert (np.asarray(picture) == labels + 1).all()
            about = json.loads((reference / f"{written}.json").read_text(encoding="utf-8"))
            assert about["picture"]["file"] == name
            assert len(about["segments"]) == labels.max() + 1

    def test_each_picture_has_files_of_its_own(self, reference):
        written = [name.replace("CON", "_CON") for name in NAMES]
        assert sorted(contents(reference)) == sorted(
            f"{name}{end}" for name in written for end in (".labels.png", ".json")
        )

    def test_the_method_plus(self, photos, model, tmp_path):
        assert run(photos / NAMES[0], tmp_path / "out", model, "--method", "plus") == DONE
        labels = DiffSegPipeline.from_pretrained(model)(photos / NAMES[0], size=SIZE, method="plus").at_original()
        with Image.open(tmp_path / "out" / f"{NAMES[0]}.labels.png") as picture:
            assert (np.asarray(picture) == labels + 1).all()

    def test_words_overlays_and_whole_pictures(self, photos, model, tmp_path):
        assert run(photos / NAMES[0], tmp_path / "out", model, "--words", "b, a", "--overlay", "--whole") == DONE
        out = DiffSegPipeline.from_pretrained(model)(photos / NAMES[0], size=SIZE, words=["b", "a"], crop=False)
        about = json.loads((tmp_path / "out" / f"{NAMES[0]}.json").read_text())
        assert [each["word"] for each in about["segments"]] == list(out.words)
        assert about["settings"]["words"] == ["b", "a"] and not about["settings"]["crop"]
        with Image.open(tmp_path / "out" / f"{NAMES[0]}.labels.png") as picture:
            assert (np.asarray(picture) == out.at_original() + 1).all() and picture.size == (100, 80)
        with Image.open(tmp_path / "out" / f"{NAMES[0]}.overlay.png") as picture:
            assert picture.size == out.image.size

    def test_sixteen_bits_and_the_cameras_rotation(self, model, tmp_path):
        values = np.kron(np.random.default_rng(0).integers(0, 65536, (4, 5)), np.ones((20, 20))).astype(np.uint16)
        upright = Image.fromarray(values)
        (tmp_path / "in").mkdir()
        upright.save(tmp_path / "in" / "deep.png")
        eight = Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
        eight.save(tmp_path / "in" / "plain.png")
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        eight.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "turned.png", exif=exif)
        assert run(tmp_path / "in", tmp_path / "out", model) == DONE
        labels = [(tmp_path / "out" / f"{name}.png.labels.png").read_bytes() for name in ("deep", "plain", "turned")]
        assert labels[0] == labels[1] == labels[2]

    def test_batches(self, photos, model, tmp_path, reference, passes):
        """A batch that is done in part goes through the model as a whole again: sums of floats depend on it."""
        out = tmp_path / "out"
        assert run(photos, out, model, "--batch", 4) == DONE
        before = contents(out)
        assert before.keys() == contents(reference).keys()
        (out / "a b.png.json").unlink()
        kept = times(out)
        assert run(photos, out, model, "--batch", 4) == DONE
        assert contents(out) == before and len(passes) == len(NAMES) + 4
        assert sum(times(out)[file] != when for file, when in kept.items()) == 1  # its labels

    def test_the_command(self, photos, model, tmp_path, reference):
        command = [Path(sys.executable).with_name("diffseg"), "segment", photos, "--out", tmp_path / "out"]
        options = ["--model", model, "--size", SIZE, "--device", "cpu"]
        done = subprocess.run([str(each) for each in command + options], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (DONE, "6 segmented, 0 kept, 0 failed\n"), done.stderr
        assert contents(tmp_path / "out") == contents(reference)


class TestGoingOn:
    def test_what_is_done_is_kept(self, copy, model, tmp_path, reference, passes, capsys):
        out = tmp_path / "out"
        assert run([copy / NAMES[1], copy / NAMES[3]], out, model) == DONE
        assert run(copy, out, model) == DONE  # its folder is another one: "sea/one.jpg" is where it was
        assert len(passes) == len(NAMES) and capsys.readouterr().out.splitlines()[1] == "4 segmented, 2 kept, 0 failed"
        before = times(out)
        assert run(copy, out, model) == DONE
        assert times(out) == before and contents(out) == contents(reference) and len(passes) == len(NAMES)

    @pytest.mark.parametrize("how", ["no labels", "damaged", "empty", "not one of ours", "another picture"])
    def test_what_is_not_whole_is_made_anew(self, copy, model, tmp_path, reference, passes, how):
        out = tmp_path / "out"
        assert run(copy, out, model) == DONE
        labels, about = out / "a b.png.labels.png", out / "a b.png.json"
        if how == "no labels":
            labels.unlink()
        elif how == "another picture":
            draw(copy / "a b.png", 99)
        else:
            about.write_text({"damaged": about.read_text()[:100], "empty": "", "not one of ours": "[1]"}[how])
        assert run(copy, out, model) == DONE
        assert passes[len(NAMES) :] == [copy / "a b.png"]
        assert (contents(out) == contents(reference)) == (how != "another picture")

    def test_an_overlay_can_be_added(self, photos, model, tmp_path, passes):
        picture, out = photos / NAMES[0], tmp_path / "out"
        assert run(picture, out, model) == run(picture, out, model, "--overlay") == DONE
        assert (out / "a b.png.overlay.png").is_file()
        assert run(picture, out, model, "--overlay") == run(picture, out, model) == DONE
        assert len(passes) == 2

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--threshold", "0.5"], "with threshold 0.001, and this run has 0.5"),
            (["--words", "a,b"], "words None, and this run has ['a', 'b']"),
            (["--whole"], "crop True, and this run has False"),
            (["--size", "32"], "size 64, and this run has 32"),
            (["--method", "plus"], "method {}, and this run has {'exponent': 1.0"),
        ],
    )
    def test_other_settings_are_not_mixed_in(self, photos, model, tmp_path, capsys, more, message):
        out = tmp_path / "out"
        assert run(photos / NAMES[1], out, model) == DONE
        before = times(out)
        assert run(photos / "sea", out, model, *more) == WRONG
        error = capsys.readouterr().err
        assert message in error and "Give another --out" in error
        assert times(out) == before

    def test_another_model_is_not_mixed_in(self, photos, model, tmp_path, capsys):
        other = tmp_path / "other"
        other.mkdir()
        parts = tiny_components(other) | {"unet": tiny_unet(seed=1)}
        DiffSegPipeline(**parts, threshold=0.001).save_pretrained(other)
        picture, out = photos / NAMES[0], tmp_path / "out"
        assert run(picture, out, model) == DONE
        assert run(picture, out, other) == WRONG
        assert "was made with model's fingerprint" in capsys.readouterr().err

    def test_a_copy_of_the_model_is_the_same(self, photos, model, tmp_path, passes):
        DiffSegPipeline.from_pretrained(model).save_pretrained(tmp_path / "copy")
        for each in (model, tmp_path / "copy"):
            assert run(photos / NAMES[0], tmp_path / "out", each) == DONE
        assert len(passes) == 1

    def test_other_versions_are_mentioned(self, photos, model, tmp_path, capsys):
        assert run(photos / NAMES[0], tmp_path / "out", model) == DONE
        file = tmp_path / "out" / "a b.png.json"
        about = json.loads(file.read_text())
        file.write_text(json.dumps(about | {"versions": about["versions"] | {"torch": "1.0"}}))
        assert run(photos / NAMES[0], tmp_path / "out", model) == DONE
        assert "made by other versions: torch 1.0" in capsys.readouterr().err


class TestFaults:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_broken_pictures_hold_nobody_up(self, copy, model, tmp_path, reference, capsys, batch):
        out = tmp_path / "out"
        good = (copy / "sea" / "one.jpg").read_bytes()
        (copy / "sea" / "one.jpg").write_bytes(good[: len(good) // 2])
        (copy / "land" / "one.jpg").write_bytes(b"")
        (copy / "text.png").write_text("no picture")
        (copy / "gone.png").symlink_to(copy / "nowhere.png")
        (copy / "notes.txt").write_text("no picture, and not taken for one")
        assert run(copy, out, model, "--batch", batch) == FAILED
        printed = capsys.readouterr()
        assert printed.out == "4 segmented, 0 kept, 4 failed\n"
        for name in ("sea/one.jpg", "land/one.jpg", "text.png", "gone.png"):
            assert f"failed: {copy / name}: " in printed.err
        assert "Left out as no pictures: 1 .txt" in printed.err
        done = contents(out)
        assert len(done) == 2 * 4

        (copy / "sea" / "one.jpg").write_bytes(good)
        (copy / "land" / "one.jpg").write_bytes((copy / "sea" / "one.jpg").read_bytes())
        assert run(copy, out, model) == FAILED
        assert capsys.readouterr().out == "2 segmented, 4 kept, 2 failed\n"
        assert contents(out).items() >= done.items()

    @pytest.mark.skipif(sys.platform != "linux", reason="Windows and macOS have no such names")
    def test_a_name_that_is_no_unicode(self, copy, model, tmp_path, capsys):
        os.rename(copy / "a b.png", os.fsencode(copy) + b"/\xff.png")
        (copy / "sea" / "one.jpg").rename(os.fsdecode(os.fsencode(copy) + b"/\xfe.jpg"))
        Path(os.fsdecode(os.fsencode(copy) + b"/\xfe.jpg")).write_bytes(b"")
        assert run(copy, tmp_path / "out", model) == FAILED
        assert "\\udcfe.jpg: " in capsys.readouterr().err
        assert (tmp_path / "out" / os.fsdecode(b"\xff.png.json")).is_file()

    def test_a_pipe_is_not_waited_for(self, copy, model, tmp_path):
        if not hasattr(os, "mkfifo"):
            pytest.skip("Windows has no such pipes")
        os.mkfifo(copy / "pipe.png")
        assert run(copy, tmp_path / "out", model) == FAILED

    def test_a_full_disk(self, photos, model, tmp_path, reference, capsys):
        with small_disk(tmp_path / "disk", "24k") as disk:
            assert run(photos, disk / "out", model) == FAILED
            printed = capsys.readouterr()
            assert "No space left on device" in printed.err and "what was done is kept" in printed.err
            done = contents(disk / "out")
            assert 0 < len(done) < 2 * len(NAMES) and done.items() <= contents(reference).items()
            subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
            assert run(photos, disk / "out", model) == DONE
            assert contents(disk / "out") == contents(reference)

    def test_a_disk_that_cannot_be_written_to(self, photos, model, tmp_path, capsys):
        with small_disk(tmp_path / "disk", "24k", ",ro") as disk:
            assert run(photos, disk / "out", model) == WRONG
        assert "cannot be written to (Read-only file system). Give another folder" in capsys.readouterr().err

    def test_a_folder_of_somebody_else(self, photos, model, tmp_path, capsys):
        out = tmp_path / "out"
        out.mkdir()
        out.chmod(0o555)
        with ordinary_user(tmp_path):
            assert run(photos, out, model) == WRONG
        assert "cannot be written to (Permission denied). Give another folder" in capsys.readouterr().err

    def test_two_commands_in_one_folder(self, photos, model, tmp_path, capsys):
        (tmp_path / "out").mkdir()
        with sole_user(tmp_path / "out"):
            assert run(photos, tmp_path / "out", model) == WRONG
        assert "another command is at work in" in capsys.readouterr().err
        assert contents(tmp_path / "out") == {}

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for other processes")
    def test_killed_at_random_moments(self, photos, model, tmp_path, reference, server):
        """Runs are killed at random moments and go on; a folder that is done makes room for the next one."""
        expected, moments, partly = contents(reference), random.Random(0), 0
        outs = [tmp_path / "0"]
        for _ in range(KILLS):
            process = server.Process(target=_run_alone, args=(photos, outs[-1], model))
            process.start()
            time.sleep(moments.uniform(0, 2))
            process.kill()
            process.join()
            found = contents(outs[-1])
            partly += 0 < len(found) < len(expected)
            assert all(name.endswith(".tmp") or content == expected[name] for name, content in found.items())
            if found.keys() >= expected.keys():
                outs.append(tmp_path / str(len(outs)))
        assert partly
        for out in outs:
            assert run(photos, out, model) == DONE
            assert contents(out) == expected

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for other processes")
    def test_stopped_by_hand(self, photos, model, tmp_path, reference, server):
        out = tmp_path / "out"
        process = server.Process(target=_run_alone, args=(photos, out, model))
        process.start()
        wait_until(lambda: any(out.rglob("*.json")))
        os.kill(process.pid, signal.SIGINT)
        process.join()
        assert process.exitcode == STOPPED
        assert run(photos, out, model) == DONE and contents(out) == contents(reference)

    @pytest.mark.slow
    def test_a_hundred_megapixels(self, model, tmp_path, server):
        """The peak of memory of a process that segments it, against that of one that segments a small picture."""
        peaks = []
        for side in (100, 10_000):
            file = tmp_path / f"{side}.png"
            Image.new("RGB", (side, side), "orange").save(file)
            receiver, sender = server.Pipe(duplex=False)
            process = server.Process(target=_peak, args=(file, tmp_path / "out", model, sender))
            process.start()
            status, peak = receiver.recv()
            process.join()
            assert status == DONE
            peaks.append(peak)
        pixels = 10_000**2
        assert peaks[1] - peaks[0] < 10 * pixels  # bytes; the picture itself has three for each pixel
        with Image.open(tmp_path / "out" / "10000.png.labels.png") as picture:
            assert picture.size == (10_000, 10_000)


@pytest.fixture(scope="module")
def server():
    """Starts processes that have loaded torch already."""
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    context.set_forkserver_preload(["diffseg.commands.segment", "transformers.models.clip.modeling_clip"])
    return context


def _run_alone(*given):
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(*given))


def _peak(picture, out, model, sender):
    import resource

    torch.set_num_threads(1)
    status = run(picture, out, model)
    sender.send((status, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


@contextmanager
def ordinary_user(folder):
    """Nobody in particular, for whom permissions count; the superuser may write everywhere."""
    if not hasattr(os, "geteuid"):
        pytest.skip("Windows has no such permission")
    if os.geteuid():
        yield
        return
    above = [each for each in folder.parents if not each.stat().st_mode & 0o001]
    modes = [each.stat().st_mode for each in (folder, *above)]
    for each in (folder, *above):
        each.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for each, mode in zip((folder, *above), modes):
            each.chmod(mode)


def wait_until(happened):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
class TestCluster:
    def test_a_local_process(self, copy, model, tmp_path, reference, capsys):
        (copy / "empty.png").touch()
        assert run(copy, tmp_path / "out", model, "--scheduler", "local:1") == FAILED
        assert contents(tmp_path / "out") == contents(reference)
        assert "empty.png: " in capsys.readouterr().err

    def test_other_settings_stop_it(self, photos, model, tmp_path, reference, capsys):
        assert run(photos / NAMES[0], tmp_path / "out", model) == DONE
        assert run(photos / NAMES[0], tmp_path / "out", model, "--scheduler", "local:1", "--whole") == WRONG
        assert "crop True, and this run has False" in capsys.readouterr().err

    def test_a_scheduler_that_is_none(self, photos, model, tmp_path, capsys):
        assert run(photos, tmp_path / "out", model, "--scheduler", "local:none") == WRONG
        assert "must be local:N with N from 1 on" in capsys.readouterr().err


class TestPictures:
    def found(self, given, out):
        return [picture.name for picture in find_pictures(given, out).pictures]

    def test_one_folder(self, copy, tmp_path):
        expected = sorted(name.replace("CON", "_CON") for name in NAMES)
        assert sorted(self.found([copy], tmp_path / "out")) == expected

    def test_two_folders_keep_their_names(self, copy, tmp_path):
        given = [copy / "land", copy / "sea"]
        assert {"sea/one.jpg", "land/one.jpg"} < set(self.found(given, tmp_path / "out"))

    def test_files_of_one_folder(self, copy, tmp_path):
        given = [copy / "sea" / "one.jpg", copy / "sea" / "ünï côde 写真.png", copy / "sea" / "one.jpg"]
        assert self.found(given, tmp_path / "out") == ["one.jpg", "ünï côde 写真.png"]

    def test_names_that_would_be_one_file_elsewhere(self, tmp_path):
        for name in ("A.png", "a.png", "u\u0308.png", "\u00fc.png", "x/b.png", "X/b.png"):
            draw(tmp_path / "in" / name, 0)
        found = self.found([tmp_path / "in"], tmp_path / "out")
        assert sorted(found) == sorted(["A.png", "a.png~2", "u\u0308.png", "\u00fc.png~2", "X/b.png", "x/b.png~2"])

    def test_hidden_ones_and_results_are_left_out(self, copy, tmp_path):
        before = self.found([copy], tmp_path / "out")
        draw(copy / ".thumbnails" / "a.png", 0)
        draw(copy / "._a.png", 0)
        draw(copy / "masks" / "a b.png.overlay.png", 0)
        assert self.found([copy], copy / "masks") == before

    def test_results_among_the_pictures(self, copy):
        with pytest.raises(ValueError, match="is a folder of pictures"):
            find_pictures([copy], copy)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match="no pictures in"):
            find_pictures([tmp_path], tmp_path / "out")
        with pytest.raises(FileNotFoundError, match="gone.png' is neither a file nor a folder"):
            find_pictures([tmp_path / "gone.png"], tmp_path / "out")

    def test_any_file_that_is_named(self, tmp_path):
        draw(tmp_path / "a.png", 0)
        (tmp_path / "a.png").rename(tmp_path / "a.dat")
        assert self.found([tmp_path / "a.dat"], tmp_path / "out") == ["a.dat"]


class TestCommand:
    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--threshold", "-1"], "threshold=-1.0 must be above 0"),
            (["--threshold", "much"], "could not convert"),
            (["--words", "a,,b"], "none of them empty"),
            (["--words", "a,a"], "different words"),
            (["--size", "0"], "'0' must be a whole number from 1 on"),
            (["--batch", "some"], "'some' must be a whole number from 1 on"),
        ],
    )
    def test_arguments(self, photos, model, tmp_path, capsys, more, message):
        with pytest.raises(SystemExit) as stopped:
            run(photos, tmp_path / "out", model, *more)
        assert stopped.value.code == WRONG and message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("more", "message"),
        [(["--size", "60"], "size=60 must be a positive multiple of 8"), (["--model", "no model"], "'no model'")],
    )
    def test_what_no_picture_can_be_segmented_with(self, photos, model, tmp_path, capsys, more, message):
        assert run(photos, tmp_path / "out", model, *more) == WRONG
        assert message in capsys.readouterr().err and contents(tmp_path / "out") == {}

    def test_no_pictures(self, model, tmp_path, capsys):
        assert run(tmp_path / "gone", tmp_path / "out", model) == WRONG
        assert "gone' is neither a file nor a folder" in capsys.readouterr().err

    def test_commands(self, capsys):
        assert diffseg([]) == diffseg(["--help"]) == DONE
        assert "diffseg segment" in capsys.readouterr().out
        assert diffseg(["--version"]) == DONE
        assert diffseg(["segmet"]) == WRONG
        assert "there are segment, evaluate" in capsys.readouterr().err

    def test_evaluate_is_the_other_command(self, tmp_path, capsys):
        arguments = [
            "evaluate",
            "--dataset",
            "cityscapes",
            "--root",
            str(tmp_path / "gone"),
            "--out",
            str(tmp_path / "out"),
        ]
        assert diffseg(arguments) == WRONG
        assert "gone" in capsys.readouterr().err

    def test_help_is_quick(self):
        """It loads neither torch nor anything else that is large."""
        code = "import sys, diffseg.__main__ as command; command.main([]); assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
