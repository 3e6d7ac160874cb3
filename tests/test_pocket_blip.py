"""The embedded captioner: small, loadable by transformers alone, and its captions name what a scene shows."""

from transformers import BlipForConditionalGeneration, BlipProcessor

from diffseg.models.captioner import Captioner
from diffseg.models.paths import data_dir
from diffseg.pocket import VALIDATION_SEED, scene
from diffseg.pocket.catalogue import STUFF_BY_NAME
from diffseg.pocket.training.validation import caption_rates
from diffseg.semantics import find_nouns

FOLDER = data_dir() / "models" / "pocket-blip"
SCENES = 60  # the whole table, on 200, is the last step of `python -m diffseg.pocket.training blip`


def test_folder_is_small_and_stock_transformers_load_it():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 15e6
    blip, processor = BlipForConditionalGeneration.from_pretrained(FOLDER), BlipProcessor.from_pretrained(FOLDER)
    inputs = processor(images=scene(VALIDATION_SEED).image, return_tensors="pt")
    caption = processor.batch_decode(blip.float().generate(**inputs), skip_special_tokens=True)[0]
    assert {noun.word.split()[-1] for noun in find_nouns(caption)} & set(scene(VALIDATION_SEED).nouns)


def test_captions_name_what_is_there_and_little_else():
    rates = caption_rates(Captioner.from_pretrained("pocket"), range(VALIDATION_SEED, VALIDATION_SEED + SCENES))
    assert rates.named.sum() / rates.visible.sum() >= 0.9
    assert rates.absent.sum() / (rates.named.sum() + rates.absent.sum()) <= 0.1
    words = [noun.word.split()[-1] for caption in rates.caption for noun in find_nouns(caption)]
    assert set(words) & STUFF_BY_NAME.keys()
