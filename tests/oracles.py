"""DiffSeg once more, from its formulas: elementwise numpy in float64, loops welcome.

Nothing here is shared with `diffseg`: no matrix forms, no torch, no early summing.
"""

import numpy as np

EPSILON = 1e-12  # the smallest probability of which a logarithm is taken


def bilinear(image, size):
    """One image to size x size: half-pixel centres, edges repeated (align_corners=False)."""
    side = image.shape[0]
    out = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            y = max((row + 0.5) * side / size - 0.5, 0)
            x = max((column + 0.5) * side / size - 0.5, 0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            down, across = y - top, x - left
            out[row, column] = (
                (1 - down) * (1 - across) * image[top, left]
                + (1 - down) * across * image[top, right]
                + down * (1 - across) * image[bottom, left]
                + down * across * image[bottom, right]
            )
    return out


def aggregate(maps, size, weights):
    """Eq. 2 and 3, layer by layer. maps: [q, q] or [heads, q, q]; weights: "layer" or "resolution"."""
    sides = [round(probs.shape[-1] ** 0.5) for probs in maps]
    if weights == "layer":
        ratio = np.array(sides, dtype=float)
    else:
        ratio = np.array([side / sides.count(side) for side in sides])
    ratio /= ratio.sum()
    total = np.zeros((size,) * 4)
    for probs, side, share in zip(maps, sides, ratio, strict=True):
        probs = np.asarray(probs, dtype=float)
        if probs.ndim == 3:
            probs = probs.mean(0)
        grid = probs.reshape(side, side, side, side)
        upsampled = np.zeros((side, side, size, size))
        for i in range(side):
            for j in range(side):
                upsampled[i, j] = bilinear(grid[i, j], size)
                upsampled[i, j] /= upsampled[i, j].sum()
        for i in range(size):
            for j in range(size):
                total[i, j] += share * upsampled[i * side // size, j * side // size]
    return total / total.sum((2, 3), keepdims=True)


def kl(p, q):
    """KL(p || q), nats."""
    p, q = p.ravel(), q.ravel()
    return sum(x * (np.log(max(x, EPSILON)) - np.log(max(y, EPSILON))) for x, y in zip(p, q, strict=True))


def distance(p, q):
    """D of Eq. 5."""
    return (kl(p, q) + kl(q, p)) / 2


def anchors(size, points):
    """Eq. 4's grid: as far apart as whole steps allow, centred."""
    step = (size - 1) // (points - 1)
    offset = (size - 1 - (points - 1) * step) // 2
    ticks = [offset + step * k for k in range(points)]
    return [(row, column) for row in ticks for column in ticks]


def merge(attention, points, thresholds, remove_merged):
    """Algorithm 1 line by line, or the released code's variant of its later passes."""
    attention = np.asarray(attention, dtype=float)
    size = attention.shape[0]
    every = [attention[i, j] for i in range(size) for j in range(size)]
    proposals = []
    for row, column in anchors(size, points):
        anchor = attention[row, column]
        near = [other for other in every if distance(anchor, other) < thresholds[0]]
        proposals.append(np.mean(near, axis=0))
    for tau in thresholds[1:]:
        merged = []
        if remove_merged:
            remaining = list(proposals)
            while remaining:
                first = remaining[0]
                group = [p is first or distance(first, p) < tau for p in remaining]
                merged.append(np.mean([p for p, hit in zip(remaining, group) if hit], axis=0))
                remaining = [p for p, hit in zip(remaining, group) if not hit]
        else:
            consumed = set()
            for index, first in enumerate(proposals):
                if index not in consumed:
                    group = [k for k, p in enumerate(proposals) if k == index or distance(first, p) < tau]
                    consumed.update(group)
                    merged.append(np.mean([proposals[k] for k in group], axis=0))
        proposals = merged
    return np.stack(proposals)


def suppress(proposals, size):
    """Eq. 6: upsample everything, then the first of the largest wins."""
    return np.stack([bilinear(np.asarray(p, dtype=float), size) for p in proposals]).argmax(0)


def head_divergence(probs):
    """The mean of KL over queries and ordered pairs of different heads."""
    heads, queries, _ = probs.shape
    values = [
        kl(probs[i, query], probs[j, query])
        for query in range(queries)
        for i in range(heads)
        for j in range(heads)
        if i != j
    ]
    return float(np.mean(values))
