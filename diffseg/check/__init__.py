"""Checks for the exercises of the notebooks: `check.symmetric_kl(mine)` tries your function and reports what is wrong.

Every check is a `Check`. The modules of this package go with one notebook each; names below are loaded from them.
"""

from ._aggregating import enlarge, map_at, resolution_weights
from ._clustering import constant_k, lloyd_step, patch_attention
from ._exercise import Case, Check, Mistake, NotYet
from ._heads import divided, head_divergence, jensen_shannon
from ._hooking import largest_side, mean_of_heads, noised
from ._improving import cut_cost, drop_sinks, effective_size
from ._limiting import fitted_exponent, grown_iou, side_by_side
from ._making import guided, head_error, snr_weights
from ._masks import count_pieces, relabel, suppress
from ._merging import linked_groups, merge_by_size, symmetric_kl, unseen
from ._naming import most_voted, sum_and_normalise, tokens_of
from ._scoring import best_accuracy, mean_iou, pooled_iou, shared_pixels
from ._segmenting import agreement, lazy_scores, mix_values
from ._tuning import choose_threshold, left_out, sweep_once

__all__ = [
    "Case",
    "Check",
    "Mistake",
    "NotYet",
    "agreement",
    "best_accuracy",
    "choose_threshold",
    "constant_k",
    "count_pieces",
    "cut_cost",
    "divided",
    "drop_sinks",
    "effective_size",
    "enlarge",
    "fitted_exponent",
    "grown_iou",
    "guided",
    "head_divergence",
    "head_error",
    "jensen_shannon",
    "largest_side",
    "lazy_scores",
    "left_out",
    "linked_groups",
    "lloyd_step",
    "map_at",
    "mean_iou",
    "mean_of_heads",
    "merge_by_size",
    "mix_values",
    "most_voted",
    "noised",
    "patch_attention",
    "pooled_iou",
    "relabel",
    "resolution_weights",
    "shared_pixels",
    "side_by_side",
    "snr_weights",
    "sum_and_normalise",
    "suppress",
    "sweep_once",
    "symmetric_kl",
    "tokens_of",
    "unseen",
]
