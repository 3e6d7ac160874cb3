"""Which nouns are learned: those of the pocket world, and those that captions share."""

import pytest

from diffseg.pocket import CLASSES, class_of, scene
from diffseg.pocket.catalogue import STUFF_BY_NAME
from diffseg.pocket.training.vocabulary import POCKET_WORLD, Vocabulary, count_nouns


def test_the_pocket_worlds_nouns_are_its_classes():
    assert len(POCKET_WORLD) == len(CLASSES)
    assert set(POCKET_WORLD.names) - POCKET_WORLD.things == STUFF_BY_NAME.keys()
    for word in ("dog", "brick wall", "spoon"):
        assert POCKET_WORLD.find(word) == class_of(word)
    for seed in range(30):
        drawn = scene(seed, 64)
        assert POCKET_WORLD.nouns_in(drawn.caption) == {CLASSES.index(name) for name in drawn.nouns}


def test_nouns_are_found_by_their_head():
    own = Vocabulary(("wall", "zebra"))
    assert own.find("brick wall") == 0 and own.find("zebra") == 1 and own.find("wallpaper") is None
    assert own.nouns_in("Two zebras before a brick wall and a spoon") == {0, 1}


def test_a_vocabulary_cannot_be_changed():
    with pytest.raises(AttributeError):
        Vocabulary(("wall",)).names = ("zebra",)


def test_captions_count_each_noun_once():
    captions = ["A dog beside a dog and a brick wall", "Two dogs", "A stone wall and a brick wall", "It is raining"]
    assert count_nouns(captions) == {"dog": 2, "wall": 2}
