"""Nothing that was computed from something else is ever mixed in: each thing that can change a number is changed."""

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from helpers_datasets import write_cityscapes
from helpers_evaluate import SIZE, THRESHOLDS, run, write_data, write_model
from PIL import Image

from diffseg import DiffSegPipeline, DinoSegPipeline
from diffseg.datasets import SceneItem, open_dataset, world
from diffseg.evaluate import METHODS, evaluate
from diffseg.evaluate.results import file_name
from diffseg.evaluate.workers import Job, Task, score_image
from diffseg.models.captioner import Captioner
from diffseg.models.fingerprint import fingerprint
from diffseg.models.paths import data_dir
from diffseg.models.versions import versions

pytestmark = pytest.mark.filterwarnings("ignore:.*the benchmark has")
ONE = {"diffseg": THRESHOLDS[:1]}


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", 2)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def change(file, **settings):
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def retrain(folder, part):
    """Change one weight of a part, in place."""
    pipe = DiffSegPipeline.from_pretrained(folder)
    with torch.no_grad():
        list(getattr(pipe, part).parameters())[-1].view(-1)[0].add_(0.5)
    pipe.save_pretrained(folder)


def told(*args, **options):
    lines = []
    report = run(*args, tell=lines.append, **options)
    return report, lines


class TestThreshold:
    def test_of_the_models_folder_is_kept_as_a_number(self, data, model, out):
        first = run(data, model, out, {"diffseg": None})
        change(model / "diffseg.json", threshold=THRESHOLDS[2])
        second, lines = told(data, model, out, {"diffseg": None})
        assert first.scores.setting.unique().tolist() == [0.001]
        assert second.scores.setting.unique().tolist() == [THRESHOLDS[2]]
        assert f"diffseg={THRESHOLDS[2]:g}: 0 images from {out}, 2 to compute" in lines
        fresh = run(data, model, out.with_name("fresh"), {"diffseg": None})
        pd.testing.assert_frame_equal(second.scores, fresh.scores)
        assert not np.allclose(first.scores.accuracy, second.scores.accuracy)

    def test_one_that_is_named_and_the_models_own_are_the_same_work(self, data, model, out):
        run(data, model, out, {"diffseg": None})
        report, lines = told(data, model, out, {"diffseg": (0.001,)})
        assert f"diffseg=0.001: 2 images from {out}, 0 to compute" in lines
        assert len(pq.read_table(out)) == len(report.rows) == 2


class TestModels:
    @pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
    def test_weights_at_the_same_place(self, data, model, out, part):
        run(data, model, out, ONE)
        before = fingerprint(DiffSegPipeline.from_pretrained(model))
        retrain(model, part)
        after = fingerprint(DiffSegPipeline.from_pretrained(model))
        with pytest.raises(ValueError, match=f"made with the model diffusion {before} .this run has {after}.*out="):
            run(data, model, out, ONE)
        assert len(pq.read_table(out)) == 2  # nothing was lost

    @pytest.mark.parametrize(
        ("file", "setting"),
        [("scheduler/scheduler_config.json", {"beta_end": 0.02}), ("unet/config.json", {"norm_eps": 1e-3})],
    )
    def test_settings(self, data, model, out, file, setting):
        run(data, model, out, ONE)
        change(model / file, **setting)
        with pytest.raises(ValueError, match="made with the model diffusion"):
            run(data, model, out, ONE)

    def test_a_copy_elsewhere_is_the_same_model(self, data, model, out, tmp_path):
        run(data, model, out, ONE)
        shutil.copytree(model, tmp_path / "copy")
        _, lines = told(data, tmp_path / "copy", out, ONE)
        assert f"diffseg=0.001: 2 images from {out}, 0 to compute" in lines

    def test_the_vision_transformer_counts_where_it_is_used(self, data, model, out, tmp_path, monkeypatch):
        dino = DinoSegPipeline.from_pretrained("pocket")
        dino.save_pretrained(tmp_path / "dino")
        monkeypatch.setattr("diffseg.evaluate.methods.DINO", str(tmp_path / "dino"))
        run(data, model, out, {"dinoseg": (0.1,)})
        run(data, model, out, ONE)  # a method with another model may be added
        dino.processor.image_mean = [0.4, 0.4, 0.4]
        dino.save_pretrained(tmp_path / "other")
        monkeypatch.setattr("diffseg.evaluate.methods.DINO", str(tmp_path / "other"))
        retouched = write_model(tmp_path / "same")  # the same weights at another place, so that nothing is cached
        run(data, retouched, out, ONE)
        with pytest.raises(ValueError, match="made with the model dino [0-9a-f]{12}"):
            run(data, retouched, out, {"dinoseg": (0.1,)})

    def test_the_captioner_counts_where_it_is_used(self, out, tmp_path):
        for name in ("pocket-sd", "pocket-blip"):
            shutil.copytree(data_dir() / "models" / name, tmp_path / name)
        data, model = open_dataset("pocket").head(1), tmp_path / "pocket-sd"
        wanted = {"diffseg+caption": (0.3,)}
        evaluate(data, wanted, out, model, 128)
        captioner = Captioner.from_pretrained(tmp_path / "pocket-blip")
        with torch.no_grad():
            captioner.model.vision_model.embeddings.class_embedding.add_(0.1)
        captioner.model.save_pretrained(tmp_path / "pocket-blip")
        with pytest.raises(ValueError, match="made with the model captioner"):
            evaluate(data, wanted, out, model, 128)
        evaluate(data, {"diffseg": (0.3,)}, out, model, 128)

    def test_a_worker_with_another_model_says_so(self, data, model):
        methods = {"diffseg": METHODS["diffseg"]}
        job = Job(methods, str(model), SIZE, data.spoken, data.words, False, {"diffusion": "0" * 12}, "cpu")
        with pytest.raises(ValueError, match="in this process, and 000000000000 where the run was started"):
            score_image(Task(data.items[0], ONE), job)


class TestData:
    @pytest.mark.parametrize("which", ["image", "truth"])
    def test_a_picture_or_truth_that_changed(self, data, model, out, which):
        run(data, model, out, ONE)
        file = getattr(data.items[1], which)
        pixels = np.asarray(Image.open(file)).copy()
        pixels[0, 0] = 7
        Image.fromarray(pixels).save(file)
        with pytest.raises(ValueError, match=rf"{data.items[1].name}: the picture or its truth has changed.*Delete"):
            run(data, model, out, ONE)
        (out / file_name(data.items[1].name)).unlink()
        fresh = run(data, model, out.with_name("fresh"), ONE)
        pd.testing.assert_frame_equal(run(data, model, out, ONE).scores, fresh.scores)

    def test_pictures_that_are_gone_leave_their_results(self, data, model, out):
        before = run(data, model, out, ONE).scores
        data.items[0].image.unlink()
        pd.testing.assert_frame_equal(run(data, model, out, ONE).scores, before)

    def test_another_list_is_another_score(self, data, model, out):
        both = run(data, model, out, ONE).scores
        second = run(replace(data, items=data.items[1:]), model, out, ONE).scores
        assert both.images.tolist() == [2, 2] and second.images.tolist() == [1, 1]
        assert not np.allclose(both.accuracy, second.accuracy)

    @pytest.mark.parametrize(
        "changed", [{"name": "other"}, {"split": "tune"}, {"classes": tuple(f"class {i}" for i in range(27))}]
    )
    def test_another_data_set(self, data, model, out, changed):
        run(data, model, out, ONE)
        with pytest.raises(ValueError, match=f"{next(iter(changed)).replace('name', 'dataset')} .*this run has"):
            run(replace(data, **changed), model, out, ONE)

    def test_another_size(self, data, model, out):
        run(data, model, out, ONE)
        with pytest.raises(ValueError, match="size 64 .this run has 32"):
            run(data, model, out, ONE, size=32)

    def test_scenes_have_the_digest_of_their_world(self):
        assert SceneItem(5).digest() == f"{world()}-5" and len(world()) == 12


class TestVersions:
    def test_others_warn_and_are_used(self, data, model, out):
        before = run(data, model, out, ONE).scores
        file = sorted(out.glob("*.parquet"))[0]
        table = pq.read_table(file)
        known = json.loads(table.schema.metadata[b"diffseg"])
        assert known["versions"] == versions() and known["versions"].keys() >= {"diffseg", "torch", "diffusers"}
        known["versions"]["torch"] = "1.0.0"
        pq.write_table(table.replace_schema_metadata({b"diffseg": json.dumps(known)}), file)
        with pytest.warns(
            UserWarning, match=rf"made with torch 1.0.0 \(now {versions()['torch']}\): numbers may differ"
        ):
            after = run(data, model, out, ONE).scores
        pd.testing.assert_frame_equal(after, before)

    def test_the_same_do_not(self, data, model, out):
        run(data, model, out, ONE)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(data, model, out, ONE)


def test_the_protocol_of_one_matching_asks_for_what_the_others_did_not_keep(data, model, out, monkeypatch):
    monkeypatch.setattr("diffseg.evaluate.methods.DINO", str(data_dir() / "models" / "pocket-dino"))
    run(data, model, out, ONE)
    wanted = ("clean", "dataset")
    report, lines = told(data, model, out, ONE, protocols=wanted)
    assert f"diffseg=0.001: 0 images from {out}, 2 to compute" in lines
    assert report.scores.protocol.tolist() == ["clean", "dataset"] and len(pq.read_table(out)) == 2
    _, lines = told(data, model, out, ONE, protocols=wanted)
    assert f"diffseg=0.001: 2 images from {out}, 0 to compute" in lines
    with pytest.raises(ValueError, match=r"protocols=\['fair'\] must be some of paper, clean, dataset"):
        run(data, model, out, ONE, protocols=("fair",))


def test_what_is_told(data, model, out):
    run(data.head(1), model, out, ONE)
    report, lines = told(data, model, out, {"diffseg": THRESHOLDS[:2], "kmeans-rgb": (3,)})
    assert lines == [
        f"diffusion model: {fingerprint(DiffSegPipeline.from_pretrained(model))}",
        f"diffseg=0.001: 1 images from {out}, 1 to compute",
        f"diffseg=0.0015: 0 images from {out}, 2 to compute",
        f"kmeans-rgb=3: 0 images from {out}, 2 to compute",
    ]
    assert report.models == {"diffusion": lines[0].split()[-1]}


def test_colours_alone_need_no_model(data, out):
    assert run(data, None, out, {"kmeans-rgb": (3,)}).models == {}


class TestNamesOfFiles:
    def test_names_that_every_system_can_have_stay(self):
        assert file_name("frankfurt_000000_000019") == "frankfurt_000000_000019.parquet"

    @pytest.mark.parametrize("name", ["con", "NUL", "a/b", "a:b", "Größe 1", ".hidden", "x" * 300, "end.", "日本"])
    def test_others_are_changed_and_remain_apart(self, tmp_path, name):
        file = file_name(name)
        (tmp_path / file).write_bytes(b"")
        assert [path.name for path in tmp_path.glob("[!.]*.parquet")] == [file] and len(file.encode()) < 200
        assert file.isascii() or name in file
        assert file != file_name(name + "x") and file == file_name(name)

    def test_names_that_differ_in_capitals_only(self):
        assert len({file_name(name).lower() for name in ("img", "Img", "IMG")}) == 3

    def test_names_of_all_kinds_are_scored(self, model, out, tmp_path):
        write_cityscapes(tmp_path / "data", 1)
        item = open_dataset("cityscapes", tmp_path / "data").items[0]
        names = ["con", "a b", "Straße", "a/b", "A b"]
        data = open_dataset("cityscapes", tmp_path / "data")
        data = replace(data, items=tuple(replace(item, name=name) for name in names))
        report = run(data, model, out, ONE)
        assert report.images.image.tolist() == names and len(list(out.glob("*.parquet"))) == len(names)
        _, lines = told(data, model, out, ONE)
        assert lines[-1].endswith(f"{len(names)} images from {out}, 0 to compute")
