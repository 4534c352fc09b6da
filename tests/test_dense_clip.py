import numpy as np
import pytest
import torch
from tiny_models import open_clip, tiny_clip

from pipeline.errors import BackendError
from pipeline.prompts import PromptSet
from pipeline.segmenters.dense_clip import (
    DenseClip,
    DenseFeatures,
    input_size,
    last_block_tokens,
    trunk_tokens,
)
from pipeline.segmenters.noun_maps import noun_probabilities, presence
from pipeline.segmenters.text_bank import BACKGROUND, TEMPLATES, Noun, PromptText, TextBank


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
    ours = last_block_tokens(model.visual, tokens, "vanilla")
    theirs = model.visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True)
    cells = theirs["image_intermediates"][0].flatten(2).transpose(1, 2) @ model.visual.proj
    assert grid == (4, 4)
    torch.testing.assert_close(ours[:, 0], model.encode_image(pixels), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours[:, 1:], cells, atol=2e-6, rtol=1e-5)


@torch.inference_mode()
def test_clearclip_attends_query_to_query_without_residual_and_mlp(model):
    tokens = torch.randn(2, 10, 64)
    block = model.visual.transformer.resblocks[-1]
    expected = torch.empty(2, 10, 64)
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    for b in range(2):
        normed = block.ln_1(tokens[b])
        for head in range(4):
            rows = slice(16 * head, 16 * head + 16)
            query = normed @ weight[:64][rows].T + bias[:64][rows]
            value = normed @ weight[128:][rows].T + bias[128:][rows]
            expected[b, :, rows] = (query @ query.T / 16**0.5).softmax(dim=-1) @ value
    expected = model.visual.ln_post(block.attn.out_proj(expected)) @ model.visual.proj
    ours = last_block_tokens(model.visual, tokens, "clearclip")
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)


@torch.inference_mode()
def test_maskclip_leaves_each_cell_to_itself(model):
    tokens = torch.randn(1, 10, 64)
    changed = tokens.clone()
    changed[0, 4] += torch.randn(64)
    before, after = (last_block_tokens(model.visual, t, "maskclip") for t in (tokens, changed))
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


def test_frames_do_not_depend_on_the_frames_beside_them(model):
    frames = frames_of(48, 80, count=4)
    together = dense(model).encode_frames(frames)
    for i in (2, 0):
        alone = dense(model).encode_frames(frames[i : i + 1])
        torch.testing.assert_close(alone.cells[0], together.cells[i], atol=1e-5, rtol=1e-4)


def test_texts_are_encoded_by_the_text_tower(model):
    features = dense(model).encode_texts(["a photo of a cat", "sky"])
    tokens = open_clip.tokenize(["a photo of a cat", "sky"])
    torch.testing.assert_close(features, model.encode_text(tokens, normalize=True))


def test_another_mode_or_tower_is_refused(model):
    with pytest.raises(BackendError, match=r"dense mode 'gem'; known: clearclip, sclip, maskclip"):
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
    assert [(noun.slot, len(noun.features)) for noun in text.nouns] == [(0, 2), (1, 1), (2, 1)]
    assert {"wall", "stair"} <= set(BACKGROUND)
    assert len(text.background) == len(BACKGROUND) - 2
    nobody = bank.prompt(PromptSet(key="k", actor=(), objects=("ball",), source=""))
    assert [noun.slot for noun in nobody.nouns] == [1]


def test_noun_probabilities_are_a_softmax_in_which_synonyms_enter_once():
    rng = torch.Generator().manual_seed(0)
    unit = lambda *shape: torch.nn.functional.normalize(  # noqa: E731
        torch.randn(*shape, generator=rng), dim=-1
    )
    text = PromptText((Noun(0, unit(3, 8)), Noun(2, unit(1, 8))), unit(5, 8))
    cells = unit(2, 3, 4, 8)
    actual = noun_probabilities(cells, text, 40.0)
    for index in np.ndindex(2, 3, 4):
        cell = cells[index]
        logits = [max(float(cell @ t) for t in noun.features) for noun in text.nouns]
        logits += [float(cell @ t) for t in text.background]
        weights = np.exp(40 * np.array(logits))
        np.testing.assert_allclose(actual[index], (weights / weights.sum())[:2], rtol=1e-3)


def test_presence_is_the_best_cells_of_all_frames_and_the_class_token_against_chance():
    maps = torch.zeros(2, 1, 10, 10)
    maps[0, 0, 0, :5] = 0.8
    text = PromptText((Noun(0, torch.eye(4)[:1]),), torch.eye(4)[1:4])
    frame = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    features = DenseFeatures(torch.zeros(2, 10, 10, 4), frame)
    by_cells, by_frame = presence(maps, features, text, 40.0)
    assert by_cells.tolist() == pytest.approx([0.4])
    assert by_frame.tolist() == pytest.approx([1.0])
