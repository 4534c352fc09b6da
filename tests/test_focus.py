"""Focused tokens against a written-out softmax over frames."""

import math

import torch

from i2st_model.config import preset
from i2st_model.focus import FocusedTokens


def built(number=3, dim=8):
    settings = {"global_matching": "compound", "focused_tokens": number, "dim": dim, "heads": 2}
    return FocusedTokens(preset("i2st", token_dim=8, grid=2, **settings)).double()


def test_focused_tokens_match_a_loop_over_tokens_and_frames():
    module = built()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    local = torch.randn(2, 5, 8).double()
    found = module(local)
    for b in range(2):
        for f in range(3):
            scores = []
            for t in range(5):
                width = math.exp(module.log_widths[f].item())
                offset = ((t + 0.5) / 5 - module.centres[f].item()) / width
                centred = local[b, t] - local[b, t].mean()
                normed = centred / (centred.square().mean() + 1e-5).sqrt() * module.norm.weight
                content = (module.key.weight @ normed) @ module.queries[f] / math.sqrt(8)
                scores.append(content.item() - offset**2 / 2)
            weights = torch.tensor(scores).double().softmax(0)
            torch.testing.assert_close(found[b, f], weights @ local[b])


def test_focused_tokens_start_as_means_around_equal_segments_in_order():
    local = torch.eye(8).double().unsqueeze(0)
    found = built(number=4)(local)[0]
    assert found.argmax(dim=1).tolist() in ([0, 2, 4, 6], [1, 3, 5, 7])
    assert torch.allclose(found.sum(dim=1), torch.ones(4).double())
    # Half of a segment is one standard deviation, so most weight lies in the segment.
    for token in range(4):
        assert found[token, 2 * token : 2 * token + 2].sum() > 0.6


def test_focused_tokens_serve_any_number_of_frames():
    assert built()(torch.randn(2, 16, 8).double()).shape == (2, 3, 8)
