"""What a user may get wrong: every error names the argument, its value and a remedy, and nothing is left changed."""

import jaxtyping
import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from helpers_models import tiny_components
from PIL import Image

from diffseg import DiffSegPipeline, DinoSegPipeline, aggregate, merge, read_image, record_attention, suppress
from diffseg.models.captioner import Captioner

OPTIONS = {"size": 64, "points": 2}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
ATTENTION = torch.full((16,) * 4, 1 / 256)
MAPS = [torch.full((16, 16), 1 / 16)]
PROPOSALS = torch.ones(1, 3, 3)
GENERATOR = torch.Generator()
LARGE = 2**70


@pytest.fixture(autouse=True)
def nobody_checks_types(monkeypatch):
    """Tests check the types in signatures as they run; where the package is used, nothing does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return DiffSegPipeline(**tiny_components(tmp_path_factory.mktemp("tokenizer")), threshold=0.25)


@pytest.fixture(scope="module")
def dino():
    return DinoSegPipeline.from_pretrained("pocket")


@pytest.fixture(scope="module")
def things(pipe, dino, tmp_path_factory):
    """What is called, by name."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "text.txt").write_text("no picture")

    def record(model=pipe.unet, **options):
        with record_attention(model, **options):
            pass

    return {
        "pipe": lambda image=PICTURE, **options: pipe(image, **OPTIONS | options),
        "pipe.record": lambda image=PICTURE, **options: pipe.record(image, **{"size": 64} | options),
        "pipe.attend": lambda image=PICTURE, **options: pipe.attend(image, **{"size": 64} | options),
        "pipe.segment": lambda attention=ATTENTION, **options: pipe.segment(attention, **{"points": 2} | options),
        "record_attention": record,
        "aggregate": lambda maps=MAPS, size=4, **options: aggregate(maps, size, **options),
        "merge": lambda attention=ATTENTION, **options: merge(attention, **{"points": 2} | options),
        "suppress": lambda proposals=PROPOSALS, size=6: suppress(proposals, size),
        "read_image": lambda image=PICTURE, size=8: read_image(image, size),
        "dino": lambda image=PICTURE, **options: dino(image, **options),
        "dino.attend": dino.attend,
        "dino.segment": dino.segment,
        "DinoSegPipeline": lambda model=dino.model, threshold=1.0: DinoSegPipeline(model, dino.processor, threshold),
        "DiffSegPipeline": lambda **changes: DiffSegPipeline(**pipe.components | changes),
        "DiffSegPipeline.from_pretrained": lambda name="pocket", **o: DiffSegPipeline.from_pretrained(name, **o),
        "DinoSegPipeline.from_pretrained": lambda name="pocket", **o: DinoSegPipeline.from_pretrained(name, **o),
        "Captioner.from_pretrained": Captioner.from_pretrained,
        "folder": folder,
    }


# The call, the argument, its value, and what the error says besides: the remedy. {folder} stands for one with a text.
CASES = [
    ("pipe", "image", None, "type NoneType. Pass a PIL image"),
    ("pipe", "image", 5, "type int. Pass a PIL image"),
    ("pipe", "image", "{folder}/gone.jpg", "gone.jpg' is not a file. Check the path"),
    ("pipe", "image", "{folder}", "is not a file"),
    ("pipe", "image", "{folder}/text.txt", "text.txt' could not be read as an image"),
    ("pipe", "image", [], "empty list; pass one picture or more"),
    ("pipe", "image", [PICTURE, None], "type NoneType. Pass a PIL image"),
    ("pipe", "image", np.zeros((4, 4, 3)), r"float64.*uint8 from 0 to 255"),
    ("pipe", "image", np.full((4, 4, 3), np.nan), "NaN or infinity"),
    ("pipe", "image", np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\).*one image at a time"),
    ("pipe", "image", torch.zeros(3, 8, 8), "type Tensor. Pass a PIL image"),
    ("pipe", "prompt", None, "must be a text; pass '' for none"),
    ("pipe", "prompt", ["a cat"], "must be a text; pass '' for none"),
    ("pipe", "timestep", -1, "outside the model's schedule, 0 to 999; the paper takes 300"),
    ("pipe", "timestep", 1000, "outside the model's schedule, 0 to 999; the paper takes 300"),
    ("pipe", "timestep", 300.5, "must be a whole number. The paper takes 300"),
    ("pipe", "timestep", "300", "must be a whole number. The paper takes 300"),
    ("pipe", "points", 1, "must be from 2 to the side of the attention, 16"),
    ("pipe", "points", 17, "must be from 2 to the side of the attention, 16"),
    ("pipe", "points", 2.5, "must be a whole number. The paper takes 16"),
    ("pipe", "iterations", 0, "must be at least 1; the paper takes 3"),
    ("pipe", "iterations", "3", "must be a whole number. The paper takes 3"),
    ("pipe", "threshold", 0, "must be above 0 and finite. It is a distance in nats; the paper takes"),
    ("pipe", "threshold", float("nan"), "must be above 0 and finite"),
    ("pipe", "threshold", "high", "must be a number above 0"),
    ("pipe", "threshold", [0.5], "1 values for iterations=3; pass one number, or one per iteration"),
    ("pipe", "threshold", torch.tensor(-0.5), "must be above 0 and finite"),
    ("pipe", "seed", 1.5, "must be a whole number. Or pass a torch.Generator"),
    ("pipe", "seed", None, "must be a whole number. Or pass a torch.Generator"),
    ("pipe", "seed", LARGE, "does not fit into 64 bits; choose a smaller one"),
    ("pipe", "generator", 5, "must be a torch.Generator, or a list of them"),
    ("pipe", "generator", [GENERATOR] * 2, "2 generators for 1 images; pass one for each, or one"),
    ("pipe", "weights", "heavy", r"must be one of \('layer', 'resolution'\) or a mapping"),
    ("pipe", "weights", None, r"must be one of \('layer', 'resolution'\) or a mapping"),
    ("pipe", "weights", {3: 1}, r"names the sides \[3\]; the maps have \[8, 16\]. Leave out the others"),
    ("pipe", "weights", {16: -1}, "must be finite, not negative, and not all zero; for example"),
    ("pipe", "weights", {16: "much"}, "must be finite, not negative, and not all zero; for example"),
    ("pipe", "size", 60, "must be a positive multiple of 8 for this model; it was made for 64"),
    ("pipe", "size", 0, "must be a positive multiple of 8 for this model; it was made for 64"),
    ("pipe", "size", (64, 64), "must be a whole number. In pixels; this model was made for 64"),
    ("pipe", "words", "car", "must be 'caption', a list of nouns such as"),
    ("pipe", "words", [], "must be one or more different words"),
    ("pipe", "words", ["a", "a"], "must be one or more different words"),
    ("pipe", "words", 5, "must be a list of nouns, such as"),
    ("pipe", "batch_size", 0, "must be at least 1"),
    ("pipe", "batch_size", 1.5, "must be a whole number"),
    ("pipe.record", "kinds", ("temporal",), r"must name one or both of \('self', 'cross'\)"),
    ("pipe.record", "kinds", None, r"must name one or both of \('self', 'cross'\)"),
    ("pipe.record", "heads", "first", r"must be one of \('mean', 'all'\)"),
    ("pipe.record", "size", 64.0, "must be a whole number"),
    ("pipe.attend", "image", [PICTURE], "type list. Pass a PIL image"),
    ("pipe.attend", "weights", "heavy", "must be one of"),
    ("pipe.attend", "timestep", None, "must be a whole number"),
    ("pipe.segment", "attention", None, "type NoneType; pass a tensor, as `attend` returns it"),
    ("pipe.segment", "attention", ATTENTION[0], r"shape \[16, 16, 16\]; expected \[h, w, h, w\]"),
    ("pipe.segment", "attention", ATTENTION * float("nan"), "NaN or infinity; every .* must be a distribution"),
    ("pipe.segment", "size", 0, "must be at least 1 along each side.* try 512"),
    ("pipe.segment", "size", (64,), r"must be one whole number, or a pair of them, \(height, width\)"),
    ("pipe.segment", "distances", torch.zeros(2, 2), r"shape \[2, 2\].*use anchor_distances\(attention, points=2\)"),
    ("pipe.segment", "distances", 5, r"type int, expected.*use anchor_distances\(attention, points=2\)"),
    ("record_attention", "kinds", (), r"must name one or both of \('self', 'cross'\)"),
    ("record_attention", "kinds", [["self"]], r"must name one or both of \('self', 'cross'\)"),
    ("record_attention", "heads", None, r"must be one of \('mean', 'all'\)"),
    ("record_attention", "model", torch.nn.Linear(1, 1), "is a Linear without attention.*for example `pipe.unet`"),
    ("record_attention", "model", "unet", "is a str without attention.*for example `pipe.unet`"),
    ("aggregate", "maps", [], "is empty; record a UNet pass first"),
    ("aggregate", "maps", None, "type NoneType; pass a list"),
    ("aggregate", "maps", [np.ones((4, 4))], r"maps\[0\] has the type ndarray; pass tensors"),
    ("aggregate", "maps", [torch.ones(9, 9)], "9 positions, .* choose a size that is a multiple of every layer's"),
    ("aggregate", "maps", [torch.zeros(4, 4)], "no mass; every row must be a distribution. .* try bfloat16"),
    ("aggregate", "size", "4", "must be one whole number, or a pair of them"),
    ("aggregate", "weights", ["layer"], "must be one of"),
    ("merge", "attention", ATTENTION.numpy(), "type ndarray; pass a tensor"),
    ("merge", "points", 99, "must be from 2 to the side of the attention, 16"),
    ("merge", "threshold", [0.5, "a", 0.5], "threshold='a' must be a number"),
    ("merge", "iterations", True, "must be a whole number"),
    ("suppress", "proposals", None, "type NoneType; pass a tensor, as `merge` returns it"),
    ("suppress", "proposals", torch.ones(3, 3), r"shape \[3, 3\]; expected \[proposals, h, w\].* as `merge` returns"),
    ("suppress", "proposals", torch.full((1, 3, 3), float("nan")), "NaN or infinity"),
    ("suppress", "size", 8.5, "must be one whole number, or a pair of them"),
    ("suppress", "size", (8, 0), "must be at least 1 along each side"),
    ("read_image", "image", b"bytes", "type bytes. Pass a PIL image"),
    ("read_image", "image", Image.new("F", (4, 4)), r"floating point image \(mode 'F'\). Pass"),
    ("read_image", "image", np.zeros((0, 0, 3), np.uint8), "it is empty. Pass"),
    ("read_image", "size", 0, "must be at least 1 pixel; try 512"),
    ("read_image", "size", "8", "must be a whole number. In pixels; try 512"),
    ("dino", "image", None, "type NoneType. Pass a PIL image"),
    ("dino", "points", 29, "must be from 2 to the side of the attention, 28"),
    ("dino", "size", 0, "must be at least 1 pixel"),
    ("dino", "threshold", -1, "must be above 0"),
    ("dino.attend", "image", 5, "type int. Pass a PIL image"),
    ("dino.segment", "attention", torch.ones(3, 3), r"shape \[3, 3\]; expected"),
    ("DinoSegPipeline", "model", torch.nn.Linear(1, 1), "has the model type None, not 'vit'. Pass 'pocket' or a ViT"),
    ("DinoSegPipeline", "threshold", "high", "must be a number above 0"),
    ("DiffSegPipeline", "threshold", -1, "must be above 0"),
    ("DiffSegPipeline", "unet", torch.nn.Linear(1, 1), "is a Linear, not a UNet2DConditionModel. Pass 'pocket'"),
    ("DiffSegPipeline", "scheduler", None, "without scheduler. Pass 'pocket'"),
    ("DiffSegPipeline.from_pretrained", "name", 5, "must be 'pocket', a folder, a file of weights, a hub id, or None"),
    ("DiffSegPipeline.from_pretrained", "name", "", "is neither 'pocket', nor .* check the spelling"),
    ("DiffSegPipeline.from_pretrained", "name", "{folder}", "has no model_index.json. Pass 'pocket'"),
    ("DiffSegPipeline.from_pretrained", "name", "{folder}/text.txt", "is neither 'pocket', nor"),
    ("DiffSegPipeline.from_pretrained", "threshold", "high", "must be a number above 0"),
    ("DinoSegPipeline.from_pretrained", "name", "{folder}", "has no config.json. Pass 'pocket' or a ViT"),
    ("DinoSegPipeline.from_pretrained", "name", b"pocket", "must be 'pocket', a folder"),
    ("DinoSegPipeline.from_pretrained", "threshold", 0, "must be above 0"),
    ("Captioner.from_pretrained", "name", "{folder}", "has no config.json. Pass 'pocket' or a BLIP"),
]


def state_of(pipe, dino):
    """All that a call may not change."""
    hooks = [hook for module in pipe.unet.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    return {
        "processors": {name: id(processor) for name, processor in pipe.unet.attn_processors.items()},
        "hooks": hooks,
        "backend": _AttentionBackendRegistry._active_backend,
        "watchers": len(torch.overrides._get_current_function_mode_stack()),
        "thresholds": (pipe.threshold, dino.threshold),
        "captioner": pipe.captioner,
        "training": (pipe.unet.training, dino.model.training),
        "attention": dino.model.config._attn_implementation,
        "random": (torch.get_rng_state().tolist(), GENERATOR.get_state().tolist()),
        "gradients": torch.is_grad_enabled(),
    }


def descriptions(argument, value):
    """How an error may speak of a value: as it is, or, where that says little, by its type, shape, length or fault."""
    yield from (f"{argument}={value!r}", f" {type(value).__name__}")
    if hasattr(value, "shape"):
        yield from (str(list(value.shape)), str(tuple(value.shape)), "NaN", f"{argument}={value.tolist()}")
    if isinstance(value, Image.Image):
        yield f"mode {value.mode!r}"
    if isinstance(value, (list, tuple)):
        yield from (f"{len(value)} ", "empty")
        for index, each in enumerate(value):
            yield f"{argument}[{index}]"
            yield from descriptions(argument, each)


@pytest.mark.parametrize(
    ("call", "argument", "value", "remedy"),
    CASES,
    ids=[f"{call}-{name}-{i}" for i, (call, name, *_) in enumerate(CASES)],
)
def test_bad_input(things, pipe, dino, call, argument, value, remedy):
    if isinstance(value, str):
        value = value.format(folder=things["folder"])
    before = state_of(pipe, dino)
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match=remedy) as error:
        things[call](**{argument: value})
    message = str(error.value)
    assert argument in message
    assert any(described in message for described in descriptions(argument, value)) or "without scheduler" in message
    assert state_of(pipe, dino) == before


def test_the_table_is_long_enough():
    assert len(CASES) >= 40
    assert len({call for call, *_ in CASES}) > 10


def test_pictures_of_two_shapes_are_recorded_apart(pipe):
    with pytest.raises(ValueError, match=r"image holds pictures of the sizes \[\(64, 64\), \(96, 64\)\]; record those"):
        pipe.record([PICTURE, PICTURE.resize((64, 64))], size=64, crop=False)


def test_the_model_does_not_run_before_an_error(pipe, monkeypatch):
    """All but the names of sides in `weights`, which are known only when the layers are."""
    monkeypatch.setattr(pipe.vae, "encode", None)
    for call, argument, value, remedy in CASES:
        if call == "pipe" and "names the sides" not in remedy and not isinstance(value, str):
            with pytest.raises((TypeError, ValueError), match=remedy):
                pipe(**{"image": PICTURE} | OPTIONS | {argument: value})


@pytest.mark.parametrize("value", [np.int64(64), np.int32(64)])
def test_whole_numbers_of_numpy_are_whole_numbers(pipe, value):
    expected = pipe(PICTURE, size=64, points=4, timestep=64, seed=64, batch_size=64, threshold=1e-3)
    found = pipe(
        PICTURE,
        size=value,
        points=value // 16,
        timestep=value,
        seed=value,
        batch_size=value,
        threshold=np.float32(1e-3),
    )
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("threshold", [torch.tensor(1e-3), torch.full((3,), 1e-3), np.full(3, 1e-3), (1e-3,) * 3])
def test_thresholds_may_be_arrays(pipe, threshold):
    expected = pipe(PICTURE, threshold=1e-3, **OPTIONS)
    assert torch.equal(pipe(PICTURE, threshold=threshold, **OPTIONS).labels, expected.labels)
