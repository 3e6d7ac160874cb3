"""The tokens of nouns by CLIP's own vocabulary, the one of Stable Diffusion; the oracle is CLIP's own tokenizer."""

import gzip
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
from nltk.tokenize import NLTKWordTokenizer
from transformers import CLIPTokenizer

from diffseg.pocket import scene
from diffseg.semantics import Noun, find_nouns, find_tokens, name_words

# Captions, and words in them that are split into several tokens or that stand near words that are.
HANDWRITTEN = [
    ("a chrysanthemum in a vase beside a sailboat", ["chrysanthemum", "vase", "sailboat"]),
    ("An x-ray of a broken collarbone", ["x-ray", "collarbone"]),
    ("the fire-fighter's helmet on a fire-fighter", ["fire-fighter's", "helmet", "fire-fighter"]),
    ("a wheelbarrow and two wheelbarrows in the shrubbery", ["wheelbarrow", "wheelbarrows", "shrubbery"]),
    ("A motorcyclist overtakes a hot-air balloon", ["motorcyclist", "hot-air balloon"]),
    ("a bowl of jalapeños, a café and a piñata", ["bowl", "jalapeños", "café", "piñata"]),
    ("Ångström's spectrometer under a naïve façade", ["Ångström", "spectrometer", "façade"]),
    ("a 1950s jukebox with 24 records", ["jukebox", "24", "records"]),
    ("the dog's dog and the dogs' doghouse", ["dog's", "doghouse"]),
    ("an axolotl, a pangolin & an okapi", ["axolotl", "pangolin", "okapi"]),
    ("a man in a three-piece suit: houndstooth, mostly", ["three-piece suit", "houndstooth"]),
    ("an (unfinished) trompe-l'œil on a wall", ["trompe-l'œil", "wall"]),
    ("a   grand   piano\nin a ballroom", ["grand   piano", "ballroom"]),
    ("LIGHTHOUSE KEEPER WITH OILSKINS", ["LIGHTHOUSE KEEPER", "OILSKINS"]),
    ("a didgeridoo player busking/singing", ["didgeridoo player", "singing"]),
    ("a zucchini, zucchini's flower, and zucchinis", ["zucchini's", "zucchinis"]),
    ("a snowplough... and a snowplow!", ["snowplough", "snowplow"]),
    ("a Ferris wheel by the Øresund", ["Ferris wheel", "Øresund"]),
    ("一只猫 on a windowsill", ["一只猫", "windowsill"]),
    ("a grandfather-clock-like grandfather clock", ["grandfather-clock-like", "grandfather clock"]),
]


@pytest.fixture(scope="module")
def original():
    """CLIP's own tokenizer, and the merges that it reads; the rest of its package, which needs torchvision, is left."""
    found = importlib.util.find_spec("clip")
    folder = Path(found.origin).parent if found and found.origin else Path()
    vocabulary, code = folder / "bpe_simple_vocab_16e6.txt.gz", folder / "simple_tokenizer.py"
    if not (vocabulary.is_file() and code.is_file()):
        pytest.skip("CLIP's vocabulary is not here: pip install openai-clip")
    spec = importlib.util.spec_from_file_location("simple_tokenizer", code)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer = module.SimpleTokenizer(str(vocabulary))
    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    return SimpleNamespace(tokenizer=tokenizer, merges=[tuple(line.split()) for line in lines])


@pytest.fixture(scope="module")
def tokenizer(original):
    """The tokenizer that Stable Diffusion comes with, from the same vocabulary."""
    return CLIPTokenizer(vocab=dict(original.tokenizer.encoder), merges=original.merges, model_max_length=77)


def letters_of(original, ids):
    """What tokens spell, by CLIP's own tokenizer, without spaces."""
    return "".join(original.tokenizer.decode(ids).split())


def check(original, tokenizer, text, nouns):
    """Every noun's tokens spell it, once for each occurrence; the number of nouns that were split."""
    ids = tokenizer(text).input_ids
    split = 0
    for noun, own in zip(nouns, find_tokens(tokenizer, text, nouns), strict=True):
        expected = "".join("".join(text[start:end].lower().split()) for start, end in noun.spans)
        assert letters_of(original, [ids[index] for index in own]) == expected
        split += len(own) > len(noun.word.split()) * len(noun.spans)
    return split


def test_both_tokenizers_read_alike(original, tokenizer):
    for text in [scene(seed, 64).caption for seed in range(100)] + [text for text, _ in HANDWRITTEN]:
        start, *ids, end = tokenizer(text).input_ids
        assert ids == original.tokenizer.encode(text)
        assert (start, end) == (49406, 49407)


def test_nouns_of_captions(original, tokenizer):
    for seed in range(100):
        caption = scene(seed, 64).caption
        check(original, tokenizer, caption, find_nouns(caption))


def test_words_of_captions_that_are_split(tokenizer):
    """What notebook 06 says of them, to count what the paper's rule would find with this vocabulary."""
    words = {word for seed in range(100) for word in NLTKWordTokenizer().tokenize(scene(seed, 64).caption)}
    pieces = {word: len(tokenizer(word).input_ids) - 2 for word in words}
    assert {word: number for word, number in pieces.items() if number != 1} == {"sailboat": 2}


def test_nouns_of_handwritten_captions(original, tokenizer):
    for text, _ in HANDWRITTEN:
        check(original, tokenizer, text, find_nouns(text))


def test_words_that_are_split(original, tokenizer):
    split = 0
    for text, words in HANDWRITTEN:
        starts = [text.index(word) for word in words]
        nouns = [Noun(word, ((start, start + len(word)),)) for word, start in zip(words, starts, strict=True)]
        split += check(original, tokenizer, text, nouns)
    assert split >= 20, "hardly a word was split: the test would not notice tokens that are left out"


def test_vocabularies(original, tokenizer):
    """The words of all captions as a list, as `words=[...]` gives them."""
    for _, words in HANDWRITTEN:
        prompt, nouns = name_words(words)
        check(original, tokenizer, prompt, nouns)


def test_tokens_of_different_words_are_apart(tokenizer):
    for _, words in HANDWRITTEN:
        prompt, nouns = name_words(words)
        tokens = [index for own in find_tokens(tokenizer, prompt, nouns) for index in own]
        assert len(tokens) == len(set(tokens))


def test_as_many_words_as_the_model_reads(tokenizer):
    """Each is one token and a comma: 38 of them fill the 77 places, with the markers of start and end."""
    words = [word.removesuffix("</w>") for word in tokenizer.get_vocab() if word.isascii() and len(word) > 6]
    words = [word for word in words if word.isalpha() and len(tokenizer(word).input_ids) == 3]
    prompt, nouns = name_words(sorted(words)[:38])
    assert [len(own) for own in find_tokens(tokenizer, prompt, nouns)] == [1] * 38
    with pytest.raises(ValueError, match="does not fit: the prompt has 79 tokens with its two markers"):
        find_tokens(tokenizer, *name_words(sorted(words)[:39]))
