"""Which nouns a miniature learns: those of the pocket world, or those that the captions of one's own pictures share."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ...semantics import find_nouns
from ..catalogue import CLASSES, THING_BY_NAME, class_of


@dataclass(frozen=True)
class Vocabulary:
    """The nouns that captions are read for; the number of a noun is its place among the names.

    Attributes:
        names: one word each.
        things: the names of what has a shape of its own; all others are stuff. None: it is not known which are things.
    """

    names: tuple[str, ...]
    things: frozenset[str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def find(self, noun: str) -> int | None:
        """The number of a noun by the last of its words, see `class_of`; None for another noun."""
        return class_of(noun, self.names)

    def nouns_in(self, caption: str) -> frozenset[int]:
        """The numbers of the nouns that a caption holds."""
        return frozenset(number for noun in find_nouns(caption) if (number := self.find(noun.word)) is not None)


#: The classes of the scenes.
POCKET_WORLD = Vocabulary(CLASSES, frozenset(THING_BY_NAME))


def count_nouns(captions: Iterable[str]) -> Counter[str]:
    """How many captions hold each noun; of nouns of several words the last one, the head, counts."""
    heads = ({noun.word.rpartition(" ")[2] for noun in find_nouns(caption)} for caption in captions)
    return Counter(head for found in heads for head in sorted(found))
