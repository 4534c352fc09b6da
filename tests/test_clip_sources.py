"""Where a step's clips come from: masks of some of them, views as told, and the encoder's state."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic_frames import make_frame_shards
from synthetic_shards import make_shards
from test_training import SMALL

from i2st_model.drawing.draws import Stream, Words
from i2st_model.end_to_end.colour_jitter import draw_factors, jitter
from i2st_model.end_to_end.encoder_config import encoder_config
from i2st_model.end_to_end.frame_draws import FrameDraws
from i2st_model.end_to_end.open_store import open_store
from i2st_model.features import FeatureStore
from i2st_model.methods.clips import Clips
from i2st_model.stem_features import ClipFeatures, StoredFeatures
from i2st_model.training.cached_clips import CachedClips
from i2st_model.training.learners import build_learner
from i2st_model.training.setup import NO_ROWS, pool_sampler
from i2st_model.training.view_draws import ViewDraws

CPU = torch.device("cpu")
ENCODER = {"name": "efficientnet-lite0", "trained": "last_blocks", "blocks": 1}
OTAM = replace(
    SMALL, method="otam", network={}, encoder=ENCODER, way=2, pool_classes=2, queries=1, frames=2
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames") / "toy"
    make_frame_shards(folder, classes=(3, 2, 2), videos=2, frames=4)
    return open_store(folder, encoder=ENCODER, frames=2, device="cpu")


def cached(folder):
    shards = make_shards(folder, frames=6, moving=True)
    store = FeatureStore(shards, num_frames=3)
    rows = store.rows_of(store.classes_of("train"))
    features = ClipFeatures(
        store, StoredFeatures(store, "tokens"), rows, budget_bytes=0, device=CPU
    )
    return CachedClips(SMALL, store, features, ViewDraws(SMALL, store)), rows


@pytest.mark.parametrize("kind", ["cached", "frames"])
def test_masks_of_some_clips_are_theirs_among_the_masks_of_all(frames, tmp_path, kind):
    if kind == "cached":
        source, rows = cached(tmp_path / "toy")
    else:
        source = FrameDraws(OTAM, frames, frames.reader, CPU)
        rows = frames.rows_of(frames.classes_of("train"))
    drawn = source.draw(rows, 0)
    coverage, valid = drawn.masks(4, rows, np.ones(len(rows), bool))
    some = np.arange(len(rows)) % 3 == 1
    part, usable = drawn.masks(4, rows[some], some)
    assert torch.equal(part, coverage[some])
    assert torch.equal(usable, valid[some])
    assert not torch.equal(part, coverage[: some.sum()])


@pytest.mark.parametrize("flips", [False, True])
def test_frames_are_neither_cropped_nor_mirrored_unless_told(frames, flips):
    reader, rows = frames.reader, frames.rows_of(frames.classes_of("train"))
    plain = {**ENCODER, "crop": False}
    store = open_store(reader.folder, encoder=plain, device="cpu")
    seen = FrameDraws(replace(OTAM, flips=flips), store, store.reader, CPU).draw(rows, 0).seen
    every = np.broadcast_to(np.arange(4), (len(rows), 4))
    shown = store.reader.clips.clips(rows, every, store.reader.framing.middle(len(rows)))
    mirrored = [not torch.equal(one, two) for one, two in zip(seen, shown, strict=True)]
    assert any(mirrored) == flips
    for one, two, turned in zip(seen, shown, mirrored, strict=True):
        assert torch.equal(one, two.flip(2) if turned else two)


@pytest.fixture(scope="module")
def whole(frames):
    """The same frames, all four of them in each clip."""
    return open_store(frames.reader.folder, encoder=ENCODER, device="cpu")


@pytest.fixture
def views(whole, monkeypatch):
    """Draw upright clips under settings of the encoder."""
    encoder, rows = whole.reader.encoder, whole.rows_of(whole.classes_of("train"))

    def draw(number=0, **settings):
        monkeypatch.setattr(encoder, "config", encoder_config({**ENCODER, **settings}))
        draws = FrameDraws(replace(OTAM, flips=False), whole, whole.reader, CPU)
        return draws.draw(rows, number).seen

    return draw


def windows_of(clip, images):
    """Where in its resized frames all of a clip is found."""
    large = [Image.fromarray(one).resize((256, 256), Image.Resampling.BILINEAR) for one in images]
    pairs = list(zip(clip.numpy(), map(np.asarray, large), strict=True))
    return [
        (top, left)
        for top, left in np.ndindex(33, 33)
        if all(np.array_equal(f, g[top : top + 224, left : left + 224]) for f, g in pairs)
    ]


@pytest.mark.parametrize("crop", [False, True])
def test_each_clip_shows_one_window_of_its_frames_drawn_where_crop_says_so(whole, views, crop):
    images = whole.reader.frames.images(whole.rows_of(whole.classes_of("train")))
    seen = views(crop=crop)
    found = [windows_of(*one) for one in zip(seen, images, strict=True)]
    assert {len(one) for one in found} == {1}
    places = {one[0] for one in found}
    assert (places == {(16, 16)}) is not crop  # the middle is the test view
    assert len(places) == (len(images) if crop else 1)
    assert torch.equal(views(1, crop=crop), seen) is not crop


def test_clips_change_their_light_as_far_as_jitter_says(views):
    plain, grey = views(), torch.tensor([0.299, 0.587, 0.114])
    assert torch.equal(views(jitter=0.0), plain)
    for strength in (0.1, 0.5):
        seen = views(jitter=strength)
        words = Words(Stream.JITTER, OTAM.seed, 0)
        factors = draw_factors(words, len(plain), strength)
        assert torch.equal(seen, jitter(plain, factors))
        # Contrast and saturation keep a clip's grey, but for what they push over the brim.
        light, was = ((clips.float() @ grey).mean(dim=(1, 2, 3)) for clips in (seen, plain))
        np.testing.assert_allclose(light / was, factors[:, 0], atol=0.1)
    assert not torch.equal(views(1, jitter=0.5), jitter(views(1), factors))


def test_learner_on_frames_encodes_as_told_and_looks_at_segment_centres(frames, monkeypatch):
    frames.reader.weights_of = Path("another run")
    config = replace(OTAM, precision="bf16")
    classes = pool_sampler(config, frames).videos
    learner = build_learner(config, frames, classes=classes, device=CPU)
    assert frames.reader.weights_of is None
    rows = np.array([2, 0])
    with torch.no_grad():
        prepared = learner.prepare(rows)
        given = Clips(features=frames.frame_embedding(rows))
        for name, value in learner.network.head.prepare(given).items():
            assert torch.equal(prepared[name], value)
    learner.open(NO_ROWS)
    batch = learner.batch(pool_sampler(config, frames).pool(0, 2), 0)
    real, under = learner.network.features, []

    def features(views):
        under.append(torch.is_autocast_enabled("cpu"))
        return real(views)

    monkeypatch.setattr(learner.network, "features", features)
    assert learner.losses(batch).total.dtype == torch.float32
    assert under == [True]


@pytest.mark.parametrize("asked", [False, True])
def test_methods_on_an_encoder_are_given_what_they_ask_for_and_no_more(frames, asked, monkeypatch):
    classes = pool_sampler(OTAM, frames).videos
    head = build_learner(OTAM, frames, classes=classes, device=CPU).head
    for name in ("needs_embedding", "uses_class_names"):
        monkeypatch.setattr(type(head.module), name, asked)
    rows, tokens, embedding = np.array([3, 1]), torch.ones(2, 2, 49, 8), torch.zeros(2, 2, 8)
    clips = head.of_encoder(rows, tokens, embedding)
    assert clips.features is embedding
    assert clips.videos.tolist() == [3, 1]
    if not asked:
        assert clips.embedding is clips.classes is None
        return
    assert clips.embedding is embedding
    assert clips.classes.tolist() == [frames.reader.class_index[3], frames.reader.class_index[1]]
