"""Checks for the exercises of the notebooks: `check.symmetric_kl(mine)` tries your function and reports what is wrong.

Every check is a `Check`. The modules of this package go with one notebook each; names below are loaded from them.
"""

from ._aggregating import layer_weights, map_at, tile, upsample_map
from ._clustering import constant_k, lloyd_step, patch_attention
from ._exercise import Case, Check, Mistake, NotYet
from ._heads import head_divergence, jensen_shannon, kl
from ._hooking import attention_bytes, attention_probabilities, mean_of_heads, received_attention
from ._improving import cut_cost, drop_sinks, effective_size
from ._limiting import fitted_exponent, grown_iou, side_by_side
from ._masks import binary_masks, count_pieces, relabel, suppress
from ._merging import linked_groups, merge_by_size, symmetric_kl, unseen
from ._naming import most_voted, name_masks, sum_and_normalise, tokens_of
from ._scoring import best_accuracy, mean_iou, pooled_iou, shared_pixels
from ._tuning import choose_threshold, paired_error, sweep_once

__all__ = [
    "Case",
    "Check",
    "Mistake",
    "NotYet",
    "attention_bytes",
    "attention_probabilities",
    "best_accuracy",
    "binary_masks",
    "choose_threshold",
    "constant_k",
    "count_pieces",
    "cut_cost",
    "drop_sinks",
    "effective_size",
    "fitted_exponent",
    "grown_iou",
    "head_divergence",
    "jensen_shannon",
    "kl",
    "layer_weights",
    "linked_groups",
    "lloyd_step",
    "map_at",
    "mean_iou",
    "mean_of_heads",
    "merge_by_size",
    "most_voted",
    "name_masks",
    "paired_error",
    "patch_attention",
    "pooled_iou",
    "received_attention",
    "relabel",
    "shared_pixels",
    "side_by_side",
    "sum_and_normalise",
    "suppress",
    "sweep_once",
    "symmetric_kl",
    "tile",
    "tokens_of",
    "unseen",
    "upsample_map",
]
