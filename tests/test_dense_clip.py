import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import open_clip, tiny_clip

from pipeline.errors import BackendError
from pipeline.prompts import PromptSet
from pipeline.segmenters.sam_clip import dense_clip
from pipeline.segmenters.sam_clip.dense_attention import MODES, last_block_tokens, proxied_cells
from pipeline.segmenters.sam_clip.dense_clip import (
    DenseClip,
    DenseFeatures,
    input_size,
    trunk_tokens,
)
from pipeline.segmenters.sam_clip.noun_maps import noun_maps, noun_probabilities, presence
from pipeline.segmenters.sam_clip.settings import SamClipSettings
from pipeline.segmenters.sam_clip.text_bank import BACKGROUND, TEMPLATES, PromptText, TextBank


@pytest.fixture(scope="module")
def model():
    return tiny_clip()


def dense(model, **options):
    return DenseClip(model, open_clip.get_tokenizer("ViT-B-16"), short_side=64, **options)


def frames_of(height, width, count=3):
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


@torch.inference_mode()
def test_vanilla_mode_gives_the_tokens_of_open_clip(model):
    pixels = torch.randn(3, 3, 64, 64)
    tokens, grid = trunk_tokens(model.visual, pixels)
    ours = last_block_tokens(model.visual, tokens, grid, "vanilla")
    theirs = model.visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True)
    cells = theirs["image_intermediates"][0].flatten(2).transpose(1, 2) @ model.visual.proj
    assert grid == (4, 4)
    torch.testing.assert_close(ours[:, 0], model.encode_image(pixels), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours[:, 1:], cells, atol=2e-6, rtol=1e-5)


def attention_by_hand(block, tokens, likeness):
    """The attention of one clip's tokens, written out; ``likeness`` maps (q, k) to logits."""
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    normed = block.ln_1(tokens)
    mixed = torch.empty_like(normed)
    for head in range(4):
        rows = slice(16 * head, 16 * head + 16)
        query, key, value = (
            normed @ weight[start : start + 64][rows].T + bias[start : start + 64][rows]
            for start in (0, 64, 128)
        )
        mixed[:, rows] = sum(logits.softmax(dim=-1) for logits in likeness(query, key)) @ value
    return mixed


def near_by_hand(height, width):
    near = torch.zeros(1 + height * width, 1 + height * width)
    places = list(itertools.product(range(height), range(width)))
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            near[1 + i, 1 + j] = math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * 5**2))
    return near


@torch.inference_mode()
@pytest.mark.parametrize(
    ("mode", "likeness"),
    [
        ("clearclip", lambda q, k: [q @ q.T / 4]),
        ("sclip", lambda q, k: [q @ q.T / 4, k @ k.T / 4]),
        ("naclip", lambda q, k: [k @ k.T / 4 + near_by_hand(3, 4)]),
        ("maskclip", lambda q, k: [torch.eye(13).log()]),
    ],
)
def test_modes_attend_like_to_like_without_residual_and_mlp(model, mode, likeness):
    tokens = torch.randn(2, 13, 64)
    block = model.visual.transformer.resblocks[-1]
    mixed = torch.stack([attention_by_hand(block, own, likeness) for own in tokens])
    expected = model.visual.ln_post(block.attn.out_proj(mixed)) @ model.visual.proj
    ours = last_block_tokens(model.visual, tokens, (3, 4), mode)
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


@torch.inference_mode()
def test_a_proxy_says_which_cells_are_alike(model):
    tokens, proxy = torch.randn(1, 13, 64), torch.randn(1, 5, 3, 4)
    visual = model.visual
    block = visual.transformer.resblocks[-1]
    value = (
        block.ln_1(tokens[0, 1:]) @ block.attn.in_proj_weight[128:].T
        + (block.attn.in_proj_bias[128:])
    )
    features = [proxy[0, :, y, x] / proxy[0, :, y, x].norm() for y in range(3) for x in range(4)]
    alike = torch.tensor([[float(a @ b) for b in features] for a in features])
    mixed = torch.empty(12, 64)
    for i in range(12):
        above = alike[i] >= 1.2 * alike.mean()
        weights = (3 * alike[i][above]).softmax(dim=0)
        mixed[i] = weights @ value[above]
    expected = visual.ln_post(block.attn.out_proj(mixed)) @ visual.proj
    ours = proxied_cells(visual, tokens, (3, 4), proxy)[0]
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


@torch.inference_mode()
def test_a_proxy_that_sees_everything_alike_leaves_no_cell_without_weight(model):
    cells = proxied_cells(model.visual, torch.randn(1, 13, 64), (3, 4), torch.ones(1, 5, 6, 8))
    assert cells.shape == (1, 48, 32)
    assert cells.isfinite().all()


def test_the_cells_of_a_proxy_become_those_of_the_features(model):
    proxied = dense(model, mode="proxy_sam")
    features = proxied.encode_frames(frames_of(48, 80), torch.randn(3, 7, 6, 10))
    assert proxied.needs_proxy
    assert not dense(model).needs_proxy
    assert features.cells.shape == (3, 6, 10, 32)
    torch.testing.assert_close(features.cells.norm(dim=-1), torch.ones(3, 6, 10))


@torch.inference_mode()
def test_maskclip_leaves_each_cell_to_itself(model):
    tokens = torch.randn(1, 10, 64)
    changed = tokens.clone()
    changed[0, 4] += torch.randn(64)
    before, after = (
        last_block_tokens(model.visual, t, (3, 3), "maskclip") for t in (tokens, changed)
    )
    moved = (before - after).abs().amax(dim=-1)[0] > 1e-6
    assert moved.tolist() == [i == 4 for i in range(10)]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [((240, 320), (448, 592)), ((320, 240), (592, 448)), ((64, 64), (448, 448))],
)
def test_input_size_keeps_the_aspect_in_whole_patches(frame, expected):
    assert input_size(frame, 448, (16, 16)) == expected


def test_cells_cover_the_whole_frame_and_have_unit_length(model):
    features = dense(model).encode_frames(frames_of(60, 80))
    assert features.cells.shape == (3, 4, 5, 32)
    torch.testing.assert_close(features.cells.norm(dim=-1), torch.ones(3, 4, 5))
    torch.testing.assert_close(features.frame.norm(dim=-1), torch.ones(3))


def test_the_frame_feature_is_the_embedding_of_open_clip_in_every_mode(model):
    frames = frames_of(64, 64)
    pixels = frames.permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    expected = model.encode_image((pixels - mean) / std, normalize=True)
    for mode in ("vanilla", "clearclip"):
        actual = dense(model, mode=mode).encode_frames(frames).frame
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_positions_follow_the_cells_when_the_grid_grows(model):
    # A smooth table of positions must still be one after interpolation, along rows and columns.
    visual = tiny_clip().visual
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    table = torch.zeros(17, 64)
    table[1:, 0], table[1:, 1] = rows.flatten(), columns.flatten()
    visual.positional_embedding.data.copy_(table)
    visual.class_embedding.data.zero_()
    visual.conv1.weight.data.zero_()
    visual.ln_pre = torch.nn.Identity()
    visual.transformer.resblocks = visual.transformer.resblocks[-1:]
    tokens, grid = trunk_tokens(visual, torch.zeros(1, 3, 64, 128))
    cells = tokens[0, 1:].view(*grid, 64)
    assert grid == (4, 8)
    torch.testing.assert_close(cells[..., 0], rows[:, :1].expand(4, 8), atol=1e-5, rtol=0)
    assert (cells[..., 1].diff(dim=1) > 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_frames_are_encoded_in_bfloat16_as_on_a_gpu(model, mode, monkeypatch):
    frames, clip = frames_of(48, 80), dense(model, mode=mode)
    proxy = torch.randn(3, 7, 6, 10) if clip.needs_proxy else None
    expected = clip.encode_frames(frames, proxy)
    monkeypatch.setattr(dense_clip, "autocast", lambda device: torch.autocast("cpu"))
    for ours, theirs in zip(clip.encode_frames(frames, proxy), expected, strict=True):
        assert ours.dtype == torch.float32
        assert not torch.equal(ours, theirs)
        assert ((ours * theirs).sum(dim=-1) > 0.99).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 3])
def test_bits_of_a_frame_do_not_depend_on_the_frames_beside_it(model, mode, size):
    frames, proxy = frames_of(48, 80, count=5), torch.randn(5, 7, 6, 10)
    clip = dense(model, mode=mode, frames_per_launch=size)

    def encode(rows):
        return clip.encode_frames(frames[rows], proxy[rows] if clip.needs_proxy else None)

    together = encode([*range(5)])
    for rows in ([2], [4, 3, 2, 1, 0], [0, 2]):
        for ours, theirs in zip(encode(rows), together, strict=True):
            assert torch.equal(ours, theirs[rows])


def test_texts_are_encoded_by_the_text_tower(model):
    features = dense(model).encode_texts(["a photo of a cat", "sky"])
    tokens = open_clip.tokenize(["a photo of a cat", "sky"])
    torch.testing.assert_close(features, model.encode_text(tokens, normalize=True))


def test_another_mode_or_tower_is_refused(model):
    with pytest.raises(
        BackendError, match=r"dense mode 'gem'; known: clearclip, naclip, sclip, maskclip"
    ):
        dense(model, mode="gem")
    resnet = open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    )
    with pytest.raises(BackendError, match="ModifiedResNet has no plain ViT"):
        dense(resnet)


def one_hot_texts(texts):
    """A text tower that knows colours: red, green, blue; everything else is grey."""
    axes = {"red": 0, "green": 1, "blue": 2}
    found = [next((axes[w] for w in axes if w in text.split()), 3) for text in texts]
    return torch.eye(4)[found]


def test_a_word_is_the_mean_over_its_templates_and_encoded_once():
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return torch.nn.functional.normalize(torch.randn(len(texts), 8), dim=-1)

    bank = TextBank(encode)
    features = bank.features(["cat", "dog", "cat"])
    assert calls == [[t.format("cat") for t in TEMPLATES], [t.format("dog") for t in TEMPLATES]]
    torch.testing.assert_close(features[0], features[2])
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))


def test_a_prompt_takes_its_own_words_out_of_the_background():
    bank = TextBank(one_hot_texts)
    prompts = PromptSet(
        key="k", actor=("person", "man"), objects=("rock wall", "stairs"), source=""
    )
    text = bank.prompt(prompts)
    assert text.slots == (0, 1, 2)
    assert text.named.tolist() == [[True, True], [True, False], [True, False], [False, False]]
    assert text.words.shape == (4, 2, 4)
    assert {"wall", "stair"} <= set(BACKGROUND)
    dropped = {word for word, kept in zip(BACKGROUND, text.kept, strict=True) if not kept}
    assert dropped == {"wall", "stair"}
    assert text.num_choices == 3 + len(BACKGROUND) - 2
    assert bank.prompt(replace(prompts, key="other")) is text


def test_a_prompt_may_name_no_actor_or_nothing():
    bank = TextBank(one_hot_texts)
    nobody = bank.prompt(PromptSet(key="k", actor=(), objects=("red ball",), source=""))
    assert nobody.slots == (1,)
    assert nobody.words[1, 0].tolist() == [1, 0, 0, 0]
    nothing = bank.prompt(PromptSet(key="k", actor=(), objects=(), source=""))
    assert nothing.slots == ()
    assert nothing.kept.all()


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


def random_text():
    """Three words for slot 0, one for slot 2, and four of five background words."""
    named = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]]).bool()
    words = unit(4, 3, 8) * named[..., None]
    kept = torch.tensor([1, 1, 0, 1, 1]).bool()
    return PromptText(words, named, unit(5, 8), kept, slots=(0, 2), num_choices=6)


def test_noun_probabilities_are_a_softmax_in_which_synonyms_enter_once():
    text = random_text()
    cells = unit(2, 3, 4, 8)
    actual = noun_probabilities(cells, text, 40.0)
    assert actual.shape == (2, 3, 4, 4)
    for index in np.ndindex(2, 3, 4):
        cell = cells[index]
        logits = [max(float(cell @ word) for word in text.words[0]), float(cell @ text.words[2, 0])]
        logits += [float(cell @ text.background[i]) for i in (0, 1, 3, 4)]
        weights = np.exp(40 * np.array(logits))
        expected = (weights / weights.sum())[:2]
        np.testing.assert_allclose(actual[index], [expected[0], 0, expected[1], 0], rtol=1e-3)


def test_presence_is_the_best_cells_of_all_frames_and_the_class_token_against_chance():
    maps = torch.zeros(2, 4, 10, 10)
    maps[0, 0, 0, :5] = 0.8
    words = torch.zeros(4, 1, 4)
    words[0, 0, 0] = 1
    named = torch.tensor([[True], [False], [False], [False]])
    text = PromptText(words, named, torch.eye(4)[1:4], torch.ones(3).bool(), (0,), 4)
    frame = torch.full((2, 4), 0.5)
    seen = presence(maps, DenseFeatures(torch.zeros(2, 10, 10, 4), frame), text, 40.0)
    assert seen.by_cells.tolist() == pytest.approx([0.4, 0, 0, 0])
    assert seen.by_frame.tolist() == pytest.approx([1.0, 0, 0, 0])


def test_maps_of_a_clip_do_not_depend_on_the_clips_beside_it():
    bank = TextBank(lambda texts: unit(len(texts), 8))
    features = DenseFeatures(unit(6, 3, 4, 8), unit(6, 8))
    prompts = [("person", "man"), ("hand",), ()]
    texts = [
        bank.prompt(PromptSet(key="k", actor=actor, objects=("ball",), source=""))
        for actor in prompts
    ]
    together = noun_maps(features, texts, SamClipSettings(min_presence_frame=0))
    assert (
        together.named.tolist()
        == [[True, True, False, False]] * 4 + [[False, True, False, False]] * 2
    )
    for c, text in enumerate(texts):
        own = slice(2 * c, 2 * c + 2)
        alone = noun_maps(
            DenseFeatures(features.cells[own], features.frame[own]),
            [text],
            SamClipSettings(min_presence_frame=0),
        )
        assert torch.equal(together.maps[own], alone.maps)
        assert torch.equal(together.thresholds[own], alone.thresholds)


def test_a_threshold_is_half_of_the_peak_but_not_below_the_least_and_none_where_absent():
    settings = SamClipSettings(min_presence_cells=0.3, min_presence_frame=0)
    axes = {"red": 0, "blue": 2}
    bank = TextBank(
        lambda texts: torch.eye(4)[[next((axes[w] for w in axes if w in t), 3) for t in texts]]
    )
    text = bank.prompt(PromptSet(key="k", actor=("red",), objects=("blue",), source=""))
    cells = torch.zeros(2, 2, 2, 4)
    cells[..., 1] = 1
    cells[0, 0, 0] = torch.eye(4)[0]
    nouns = noun_maps(DenseFeatures(cells, torch.eye(4)[:1].expand(2, 4)), [text], settings)
    # Red fills a cell of the first frame: half of its peak of 1, and the least in the second.
    torch.testing.assert_close(
        nouns.thresholds, torch.tensor([[0.5, 2, 2, 2], [0.2, 2, 2, 2]]), atol=1e-5, rtol=0
    )
