"""Tables of long runs: what they say is what the models in the box do today."""

import json
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from diffseg import results
from diffseg.datasets import open_dataset, world
from diffseg.evaluate.counting import is_there
from diffseg.exits import WRONG
from diffseg.results.__main__ import main
from diffseg.results.making import make, outdated, rows_of
from diffseg.results.recipes import RECIPES
from diffseg.results.rows import Models

SIZE = 128
TOLERANCE = 0.02  # of scores: sums of floats in another order can move a few pixels to another segment

SCORES = ("accuracy", "miou", "iou", "boundary", "ceiling_accuracy", "ceiling_boundary", "moved")

#: The share of a scene's rows that may differ: two maps whose distance is the threshold to the last digit are merged on
#: one kind of processor and not on another.
NEAR_TIES = 0.03

#: Table with a row for each scene -> its recipe.
BY_SCENE = {"validation-scenes": "validation"} | {name: name for name in RECIPES if name != "validation"}


@pytest.fixture(scope="module")
def models():
    return Models()


class TestWhatIsKept:
    def test_every_recipe_has_its_table(self):
        assert set(RECIPES) <= set(results.names()) and set(BY_SCENE) <= set(results.names())

    @pytest.mark.parametrize("name", results.names())
    def test_tables_say_what_they_were_made_with(self, name):
        table = results.load(name)
        assert len(table) and not table.isna().all().any()
        assert table.attrs.keys() >= {"about", "command", "date", "models", "world", "versions", "settings", "scenes"}
        assert table.attrs["command"].startswith("python -m diffseg.results ")

    @pytest.mark.parametrize("name", results.names())
    def test_tables_are_of_the_models_in_the_box(self, name, models):
        """If this fails, models were trained anew: `make results`."""
        assert outdated(results.load(name).attrs, models) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("name", BY_SCENE)
    def test_rows_of_a_scene_computed_again(self, name, models):
        table = results.load(name)
        scene = random.SystemRandom().choice(table.scene.unique().tolist())
        about, kept = table.attrs, table[table.scene == scene].reset_index(drop=True)
        rows = rows_of(BY_SCENE[name], scene, about["settings"], about["size"], models)
        now = pd.DataFrame(rows).rename(columns={"image": "scene"})[list(kept.columns)]
        assert len(now) == len(kept), scene
        for column in kept.columns.difference(["segments", "named", "seconds"]):  # a few pixels change them
            if pd.api.types.is_float_dtype(kept[column]):
                absolute = TOLERANCE if column in SCORES else 1e-4
                close = np.isclose(now[column].astype(float), kept[column], 1e-3, absolute, equal_nan=True)
                assert (~close).sum() <= max(1, NEAR_TIES * len(close)), (scene, column, kept[~close], now[~close])
            else:
                assert now[column].astype(kept[column].dtype).tolist() == kept[column].tolist(), (scene, column)

    def test_scores_of_the_table_are_means_of_its_rows(self):
        """The table of scores and that of classes are of the same counts."""
        classes = results.load("validation-classes").groupby(["method", "protocol"]).iou.mean()
        for row in results.load("validation").itertuples():
            assert row.miou == pytest.approx(classes[row.method, row.protocol], abs=1e-4)
            assert row.miou_low <= row.miou <= row.miou_high or row.images < 10

    def test_unknown_names(self):
        with pytest.raises(ValueError, match="name='nothing' must be one of .*sweep.*`make results` makes the tables"):
            results.load("nothing")


class TestMaking:
    @pytest.fixture
    def making(self, tmp_path):
        said = []

        def go(name="heads", scenes=2):
            files = make(name, tmp_path / "out", tmp_path / "work", scenes, SIZE, said.append)
            return [file.read_bytes() for file in files], said[-1]

        go.work = tmp_path / "work" / "heads"
        return go

    def test_goes_on_where_it_stopped(self, making):
        first, said = making()
        assert said == f"heads: 0 scenes from {making.work}, 2 computed"
        (making.work / "900001.json").unlink()  # as if it had been stopped before this one
        again, said = making()
        assert again == first and said.endswith(f"1 scenes from {making.work}, 1 computed")
        assert making(scenes=3)[1].endswith(f"2 scenes from {making.work}, 1 computed")

    def test_more_scenes_with_settings_that_are_found_again(self, making, monkeypatch):
        found = replace(RECIPES["heads"], settings=lambda *_: {"walk": ("steps=2", 1.0)})
        monkeypatch.setitem(RECIPES, "heads", found)
        making(scenes=1)
        assert making(scenes=2)[1].endswith("1 scenes from " + str(making.work) + ", 1 computed")

    @pytest.mark.parametrize("change", ["models", "thresholds", "world", "size", "versions", "settings", "recipe"])
    def test_rows_of_something_else_are_made_anew(self, making, change):
        first, _ = making()
        file = making.work / "900000.json"
        kept = json.loads(file.read_text())
        kept["about"][change] = "another"
        for row in kept["rows"]:
            row["nats"] = 2
        file.write_text(json.dumps(kept))
        again, said = making()
        assert again == first and said.endswith("1 computed")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"about": 1}'])
    def test_damaged_rows_are_made_anew(self, making, content):
        first, _ = making()
        (making.work / "900000.json").write_bytes(content)
        again, said = making()
        assert again == first and said.endswith("1 computed")

    def test_the_command(self, tmp_path, capsys):
        given = [
            "heads",
            "--scenes",
            "1",
            "--size",
            str(SIZE),
            "--out",
            str(tmp_path),
            "--work",
            str(tmp_path / "work"),
        ]
        assert main(given) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "heads.csv")
        about = json.loads((tmp_path / "heads.json").read_text())
        assert about["command"] == f"python -m diffseg.results heads --scenes 1 --size {SIZE}"
        assert main(["nothing"]) == WRONG
        assert "error: name='nothing' must be one of validation, sweep" in capsys.readouterr().err


class TestOutdated:
    def test_another_model_or_world(self, models):
        roles = ["diffusion", "dino"]
        about = {"models": models.fingerprints(roles), "thresholds": models.thresholds(roles), "world": world()}
        assert outdated(about, models) == []
        assert outdated({**about, "models": about["models"] | {"dino": "0" * 12}}, models) == ["dino"]
        assert outdated({**about, "world": "0" * 12}, models) == ["world"]
        lower = about["thresholds"] | {"diffusion": 0.5}
        assert outdated({**about, "thresholds": lower}, models) == ["threshold of diffusion"]


def test_rows_of_a_scene_are_as_the_recipe_says(models):
    item = open_dataset("pocket").items[0]
    for row in RECIPES["words"].rows(models, item, {"threshold": 0.3}, SIZE):
        assert row["scene"] == item.name and 0 <= row["miou"] <= row["accuracy"] + 1 and not is_there(row["words"])
