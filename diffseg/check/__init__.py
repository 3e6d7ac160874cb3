"""Checks for the exercises of the notebooks: `check.symmetric_kl(mine)` tries your function and says what is wrong.

Every check is a `Check`. The modules of this package go with one notebook each; names below are loaded from them.
"""

from ._aggregating import layer_weights, map_at, tile, upsample_map
from ._exercise import Case, Check, Mistake, NotYet
from ._heads import averaging_loss, head_divergence, kl
from ._hooking import attention_bytes, attention_probabilities, mean_of_heads, received_attention
from ._masks import binary_masks, count_pieces, relabel, suppress
from ._merging import linked_groups, merge_by_size, symmetric_kl, unseen

__all__ = [
    "Case",
    "Check",
    "Mistake",
    "NotYet",
    "attention_bytes",
    "attention_probabilities",
    "averaging_loss",
    "binary_masks",
    "count_pieces",
    "head_divergence",
    "kl",
    "layer_weights",
    "linked_groups",
    "map_at",
    "mean_of_heads",
    "merge_by_size",
    "received_attention",
    "relabel",
    "suppress",
    "symmetric_kl",
    "tile",
    "unseen",
    "upsample_map",
]
