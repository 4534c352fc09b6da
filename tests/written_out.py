"""Layers written out head by head and cell by cell, for one frame or clip in float64."""

import math

import torch


def awake(module):
    """Give every parameter a value of its own, zero-initialised ones too, as training would."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.double().eval()


def encoding(place, size):
    """Sines, then cosines, of a place times falling frequencies: (size,)."""
    angles = [place / 10_000 ** (k / (size // 2)) for k in range(size // 2)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)]).double()


def grid_encodings(side, dim):
    """Of row-major cells, half for the row and half for the column: (side^2, dim)."""
    line = [encoding(place, dim // 2) for place in range(side)]
    return torch.stack([torch.cat([line[y], line[x]]) for y in range(side) for x in range(side)])


def normed(layer, rows):
    """Layer normalisation of (R, D)."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    length = (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return centred / length * layer.weight + layer.bias


def mapped(layer, rows):
    """A linear layer, with or without a bias."""
    bias = 0 if layer.bias is None else layer.bias
    return rows @ layer.weight.T + bias


def gelu(values):
    return values * (1 + torch.erf(values / math.sqrt(2))) / 2


def fed(part, rows):
    """Feed-forward: normalisation, two linear maps with a GELU between them."""
    norm, first, _, second, _ = part
    return mapped(second, gelu(mapped(first, normed(norm, rows))))


def attended(layer, query, memory):
    """What (Q, D) queries read of (S, D) rows, all heads: (Q, D)."""
    size = query.shape[1] // layer.heads
    asked, keys = mapped(layer.query, query), mapped(layer.key, memory)
    values, heads = mapped(layer.value, memory), []
    for head in range(layer.heads):
        own = slice(head * size, (head + 1) * size)
        weights = (asked[:, own] @ keys[:, own].T / math.sqrt(size)).softmax(dim=1)
        heads.append(weights @ values[:, own])
    return mapped(layer.output, torch.cat(heads, dim=1))


def encoded(encoder, memory):
    """The instance encoder on one frame: (L, D) to (n, D)."""
    queries = encoder.queries
    for layer in encoder.layers:
        asked = normed(layer.self_norm, queries)
        queries = queries + attended(layer.self_attention, asked, asked)
        asked = normed(layer.cross_norm, queries)
        queries = queries + attended(layer.cross_attention, asked, memory)
        queries = queries + fed(layer.feed_forward, queries)
    return normed(encoder.norm, queries)


def decoded(decoder, instances, memory):
    """The mask decoder on one frame: (n, D) and (L, D) to (n, 4 g, 4 g) logits, cell by cell."""
    side, width = decoder.side, decoder.width
    first, _, second = decoder.vectors
    vectors = mapped(second, gelu(mapped(first, instances))).view(-1, 2, 2, width)
    fine = mapped(decoder.upsample, memory).view(side, side, 2, 2, width)
    masks = torch.empty(len(instances), 4 * side, 4 * side).double()
    for y in range(4 * side):
        for x in range(4 * side):
            pixel = fine[y // 4, x // 4, y % 4 // 2, x % 4 // 2]
            pixel = normed(decoder.norm, pixel.unsqueeze(0))[0].clamp_min(0)
            product = vectors[:, y % 2, x % 2] @ pixel / math.sqrt(width)
            masks[:, y, x] = product + decoder.bias
    return masks


def convolved(layer, image):
    """A 3 x 3 convolution of (C, H, W) with a border of zeros."""
    height, width = image.shape[1:]
    padded = torch.zeros(len(image), height + 2, width + 2).double()
    padded[:, 1:-1, 1:-1] = image
    found = torch.empty(len(layer.weight), height, width).double()
    for y in range(height):
        for x in range(width):
            window = padded[:, y : y + 3, x : x + 3]
            found[:, y, x] = (layer.weight * window).sum(dim=(1, 2, 3)) + layer.bias
    return found


def twice(image):
    """Bilinear interpolation of (C, H, W) to twice its side, by the centres of pixels."""
    for axis in (1, 2):
        size, rows = image.shape[axis], []
        for place in range(2 * size):
            at = min(max((place + 0.5) / 2 - 0.5, 0), size - 1)
            low, high = math.floor(at), min(math.floor(at) + 1, size - 1)
            share = at - low
            rows.append((1 - share) * image.select(axis, low) + share * image.select(axis, high))
        image = torch.stack(rows, dim=axis)
    return image


def pooled(tokens, weights, floor):
    """Mean of (L, D) tokens by (L,) weights, none below the floor."""
    raised = [floor + (1 - floor) * float(weight) for weight in weights]
    return sum(w * token for w, token in zip(raised, tokens, strict=True)) / sum(raised)
