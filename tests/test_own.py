"""One's own pictures: what is read, what is skipped, what is wrong; and a training on them, stopped and taken up."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from diffseg import DiffSegPipeline
from diffseg.models.paths import data_dir
from diffseg.pocket import scene
from diffseg.pocket.training.__main__ import main
from diffseg.pocket.training.loop import OutOfTime, find_snapshots
from diffseg.pocket.training.own import OwnPictures, read_collection, shorten_caption
from diffseg.pocket.training.recipes import OWN, Generation, Stage, train_own

START = data_dir() / "models" / "pocket-sd"
CAPTIONS = [
    f"A {thing} on the {stuff}, {how}"
    for thing in ("robot", "mug")
    for stuff in ("table", "shelf")
    for how in ("big", "small")
]


@pytest.fixture(scope="module")
def tokenizer():
    return DiffSegPipeline.from_pretrained(START).tokenizer


def write_folder(folder, rows, columns=("file_name", "text"), size=(48, 32)):
    """Small pictures of noise, and metadata.csv; names without a suffix get no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, _ in rows:
        if "." in name:
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return folder


def named(captions):
    return [(f"{number}.png", caption) for number, caption in enumerate(captions)]


# ---- reading --------------------------------------------------------------------------------------------------------


def test_nouns_that_enough_captions_hold_are_learned(tmp_path, tokenizer):
    rows = named([*CAPTIONS, "A robot on a roof", "Rain"])
    found = read_collection(write_folder(tmp_path, rows), tokenizer)
    assert found.vocabulary.names == ("robot", "mug", "shelf", "table") and found.vocabulary.things is None
    assert [file.name for file in found.files] == [f"{number}.png" for number in range(9)]
    assert found.captions == (*CAPTIONS, "A robot on a roof")
    assert found.skipped == {"9.png": "its caption holds no noun that is learned"}
    assert read_collection(tmp_path, tokenizer, 5, least_pictures=5).vocabulary.names == ("robot",)


def test_pictures_that_cannot_be_read_are_skipped(tmp_path, tokenizer):
    folder = write_folder(tmp_path, named([*CAPTIONS, *CAPTIONS[:2]]))
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "3.png").write_text("no picture")
    found = read_collection(folder, tokenizer)
    assert found.skipped.keys() == {"0.png", "3.png"}
    assert all(why.startswith("it cannot be read (") for why in found.skipped.values())
    assert len(found.files) == len(found.captions) == 8


def test_captions_are_one_line_that_the_model_can_read(tokenizer):
    assert shorten_caption(" a dog\non  the\u2028grass ", tokenizer) == "a dog on the grass"
    words = ["a", "dog"] * 60
    short = shorten_caption(" ".join(words), tokenizer)
    kept = len(short.split())
    assert short == " ".join(words[:kept])
    fits, too_long = (len(tokenizer(" ".join(words[:number]), verbose=False).input_ids) for number in (kept, kept + 1))
    assert fits <= tokenizer.model_max_length < too_long


def test_pictures_are_squares_of_the_stages_size(tmp_path, tokenizer):
    folder = write_folder(tmp_path, [(f"part/{name}", text) for name, text in named(CAPTIONS)])
    left = np.zeros((20, 60, 3), np.uint8)
    left[:, 20:40] = 200  # the central square
    Image.fromarray(left).save(folder / "part" / "0.png")
    pictures = OwnPictures(read_collection(folder, tokenizer), 5, 64)
    image, labels, caption = pictures[0]
    assert len(pictures) == 5 and caption == CAPTIONS[0]
    assert image.shape == (64, 64, 3) and labels.shape == (64, 64) and (labels == 255).all()
    assert (image == 200).mean() > 0.9


def test_other_pictures_or_captions_are_not_mistaken(tmp_path, tokenizer):
    def name():
        return OwnPictures(read_collection(tmp_path, tokenizer), 8, 64).name

    write_folder(tmp_path, named(CAPTIONS))
    first = name()
    assert name() == first
    Image.new("RGB", (32, 32)).save(tmp_path / "2.png")
    second = name()
    write_folder(tmp_path, named([*CAPTIONS[1:], CAPTIONS[0]]))
    assert len({first, second, name()}) == 3


@pytest.mark.parametrize(
    ("rows", "columns", "error", "message"),
    [
        ([("0", "x")], ("file_name", "text"), FileNotFoundError, "lists 1 of 1 files that are not there: 0"),
        (named(CAPTIONS), ("file", "text"), ValueError, r"its columns are \['file', 'text'\]"),
        ([("0.png", "a dog", "on grass")], ("file_name", "text"), ValueError, "line 2 does not have 2 values"),
        ([("0.png",)], ("file_name", "text"), ValueError, "line 2 does not have 2 values"),
        (named(CAPTIONS[:3]), ("file_name", "text"), ValueError, r"no noun is in 4 captions.*robot \(3\), table \(2\)"),
        (
            named(["It is raining"] * 9),
            ("file_name", "text"),
            ValueError,
            "no noun is in 4 captions.*there are none at all",
        ),
        (named(CAPTIONS[:4]), ("file_name", "text"), ValueError, "of 4 pictures 4 can be learned from; at least 8"),
        ([], ("file_name", "text"), ValueError, "of 0 pictures 0 can be learned from"),
    ],
)
def test_errors_say_what_to_do(tmp_path, tokenizer, rows, columns, error, message):
    with (tmp_path / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    for name, *_ in rows:
        if "." in name:
            Image.new("RGB", (16, 16)).save(tmp_path / name)
    with pytest.raises(error, match=message):
        read_collection(tmp_path, tokenizer)


def test_what_was_skipped_is_in_the_error_for_too_few_pictures(tmp_path, tokenizer):
    folder = write_folder(tmp_path, named(CAPTIONS))
    (folder / "0.png").write_text("no picture")
    with pytest.raises(ValueError, match="of 8 pictures 6 can be learned.*Skipped: 0.png: it cannot be read"):
        read_collection(folder, tokenizer)


def test_command_says_what_is_wrong_in_a_line(tmp_path, capsys):
    command = ["own", str(tmp_path), "--target", str(tmp_path / "model"), "--device", "cpu"]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--runs", str(tmp_path / "runs")])
    assert "has no metadata.csv. It needs the columns file_name and text" in capsys.readouterr().err
    for wrong, message in (
        (["own", "--target", "x"], "`own` needs FOLDER"),
        (["own", "x"], "`own` needs --target"),
        (["tune", "--target", "x"], "--target is for `own`, not for `tune`"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
        assert message in capsys.readouterr().err


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_on_ones_own_pictures_goes_on_after_stops(tmp_path, capsys):
    """Scenes as PNG files with captions, and one that cannot be read; two steps of each part at a small size."""
    folder, runs, target = tmp_path / "pictures", tmp_path / "runs", tmp_path / "model"
    drawn = [scene(seed, 128) for seed in range(12)]
    write_folder(folder, [(f"{number}.png", one.caption) for number, one in enumerate(drawn)] + [("bad.png", "A dog")])
    for number, one in enumerate(drawn):
        one.image.save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"")
    recipe = replace(
        OWN,
        nouns=Stage(128, 100, 2, 32),
        places=(Generation(128, 2, 0.5),),
        unet=(Stage(128, 8, 2, 2, 0.5),),
        workers=0,
    )

    def go_on(deadline):
        train_own(replace(recipe, deadline=deadline), folder, START, runs, target)

    for stopped_in in ("latents-128-10-own-.*: 8 of 10", "nouns: 1 of 2", "places-1-128: 1 of 2", "unet-1-128: 1 of 2"):
        with pytest.raises(OutOfTime, match=stopped_in):
            go_on(0.0)
    assert not target.exists()
    latents = {file: file.stat().st_mtime_ns for file in (runs / "latents").iterdir()}
    go_on(np.inf)
    assert latents == {file: file.stat().st_mtime_ns for file in (runs / "latents").iterdir()}
    report = capsys.readouterr().out
    assert "skipped bad.png: it cannot be read" in report and "10 pictures; the nouns: sky, forest" in report

    (own,) = runs.glob("own-*")
    assert list(find_snapshots(own / "unet-1-128")) == [2]
    assert json.loads((target / "diffseg.json").read_text()) == {
        "threshold": json.loads((START / "diffseg.json").read_text())["threshold"]
    }
    assert list(pd.read_csv(target / "training.csv")) == ["step", "loss", "rate", "seconds", "stage"]
    trained, start = (DiffSegPipeline.from_pretrained(model) for model in (target, START))
    stored = torch.load(own / "unet-1-128" / "checkpoint.pt")["ema"]
    for name in ("unet", "text_encoder"):
        old = getattr(start, name).state_dict()
        for key, value in getattr(trained, name).state_dict().items():
            torch.testing.assert_close(value, stored[f"denoiser.{name}.{key}"], rtol=1e-3, atol=1e-4)  # half precision
        new = getattr(trained, name).state_dict()
        moved = [(new[key] - old[key]).abs().max().item() for key in old if old[key].is_floating_point()]
        assert 0 < max(moved) < 0.1  # it goes on from there
    torch.testing.assert_close(trained.vae.state_dict(), start.vae.state_dict(), rtol=1e-3, atol=1e-4)
    out = trained(drawn[0].image, words=drawn[0].nouns, size=128, points=4)
    assert out.labels.shape == (128, 128) and set(out.words) <= set(drawn[0].nouns)


def test_the_model_to_go_on_from_stays(tmp_path):
    with pytest.raises(ValueError, match="is the model to go on from, which must stay"):
        train_own(OWN, tmp_path, START, tmp_path, START / ".." / "pocket-sd")
