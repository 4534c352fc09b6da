"""Stored views in training: which are drawn, what is seen, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from shard_cases import FRAMES, extract, frames_row
from synthetic_shards import CELLS, FINGERPRINT, make_shards
from test_training import SMALL, make_batch, make_learner

from i2st_model.checkpoints import load_checkpoint
from i2st_model.config import preset
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.stem import Stem
from i2st_model.stem_features import ClipFeatures, StemFeatures
from i2st_model.training.run import train
from i2st_model.training.view_draws import ViewDraws
from pipeline.errors import ConfigError
from pipeline.shards.reader import ShardReader

NAMES = ("flip", "early", "late", "wide", "near")
CROPPED = {**FINGERPRINT, "view": {"geometry": "center_crop"}}
WINDOWS = [(8, 120), (8, 120), (8, 120), (8, 120), (0, 128), (16, 112)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "toy"
    return FeatureStore(make_shards(folder, signal=2.0, fingerprint=CROPPED))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views") / "toy"
    return FeatureStore(make_shards(folder, signal=2.0, fingerprint=CROPPED, views=NAMES))


def rows_of(store, split):
    return store.rows_of(store.classes_of(split))


# What is seen


def test_store_names_the_views_of_its_geometry(store):
    assert [view.name for view in store.views] == list(NAMES)
    assert [view.window for view in store.views] == [None, None, None, (0, 128), (16, 112)]


def test_store_refuses_views_that_it_does_not_know(tmp_path):
    reader = make_shards(tmp_path / "s", views=["wide"])  # of the other geometry
    with pytest.raises(ConfigError, match="unknown stored view 'wide' under full_frame; known"):
        FeatureStore(reader)


def test_store_of_frames_is_refused_with_the_way_out(tmp_path):
    extract(tmp_path, [frames_row(1)], fingerprint=FRAMES)
    with pytest.raises(ConfigError, match="holds frames; features were needed.*--store features"):
        FeatureStore(ShardReader(tmp_path))


def test_mask_targets_follow_the_window_of_each_view(store):
    rows = rows_of(store, "train")[[3, 9, 3, 20, 21, 22, 30]]
    views = np.array([0, 4, 5, 1, 5, 2, 4])
    coverage, valid = store.mask_targets(rows, 4, views=views)
    for clip, (row, view) in enumerate(zip(rows, views, strict=True)):
        bits = store.reader.masks([row], [view]).bits[0, :, 0]
        first, end = WINDOWS[view]
        seen = np.unpackbits(bits, axis=-1).reshape(-1, CELLS, CELLS)[:, first:end, first:end]
        cells = (end - first) // 4
        expected = seen.reshape(-1, 4, cells, 4, cells).mean(axis=(2, 4))
        np.testing.assert_allclose(coverage[clip].numpy(), expected, atol=1e-6)
    assert valid.all()


def test_stem_features_of_views_are_the_same_kept_or_computed(store):
    stem = Stem(preset("i2st", token_dim=16, grid=4))
    rows = np.concatenate([rows_of(store, "train")[:5], rows_of(store, "val")[:2]])
    stem.fit(store.token_sample(rows, seed=0, max_tokens=500))
    device = torch.device("cpu")
    kept, computed = (
        ClipFeatures(
            store,
            StemFeatures(store, stem, device),
            rows,
            with_views=True,
            budget_bytes=size,
            device=device,
        )
        for size in (1 << 30, 0)
    )
    assert (kept.cached, computed.cached) == (True, False)
    assert kept.size_bytes == (5 * 6 + 2) * 4 * 16 * stem.config.stem_dim * 2
    asked, views = rows[[4, 5, 0, 4]], np.array([5, 0, 1, 2])
    positions = np.array([[0, 1, 2, 3]] * 4)
    clips = kept.clips(asked, positions, views)
    assert torch.equal(clips, computed.clips(asked, positions, views))
    tokens = torch.from_numpy(store.reader.tokens(asked, views)).float()
    torch.testing.assert_close(clips, stem(tokens), rtol=1e-3, atol=1e-3)
    assert torch.equal(kept.clips(asked), kept.clips(asked, None, np.zeros(4, np.int64)))


# Which are drawn


def test_views_are_drawn_evenly_and_a_stored_flip_replaces_moved_tokens(store):
    draws, rows = ViewDraws(SMALL, store), rows_of(store, "train")
    many = np.tile(rows, 200)
    flips = np.arange(len(many)) % 2 == 0
    views, mirrored = draws.draw(7, many, flips)
    # Upright: base, early, late, wide, near, each a fifth; the flip takes half of the base's.
    counts = np.bincount(views, minlength=6) / len(many)
    assert counts == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.2, 0.2], abs=0.015)
    assert not mirrored[views == 0].any()  # a mirrored base view is the stored flip
    assert flips[views == 1].all()
    assert not mirrored[views == 1].any()  # and is not mirrored again
    np.testing.assert_array_equal(mirrored[views > 1], flips[views > 1])


def test_views_are_a_function_of_seed_and_step(store):
    rows, flips = rows_of(store, "train"), np.zeros(48, bool)
    one, again = (ViewDraws(SMALL, store).draw(3, rows, flips).views for _ in range(2))
    np.testing.assert_array_equal(one, again)
    others = (
        ViewDraws(SMALL, store).draw(4, rows, flips).views,
        ViewDraws(replace(SMALL, seed=1), store).draw(3, rows, flips).views,
    )
    assert all((one != other).any() for other in others)


def test_flip_is_never_drawn_where_clips_are_not_mirrored(store):
    rows = np.tile(rows_of(store, "train"), 20)
    views, _ = ViewDraws(SMALL, store).draw(0, rows, np.zeros(len(rows), bool))
    assert set(views.tolist()) == {0, 2, 3, 4, 5}


def test_videos_of_other_splits_show_their_base_view(store):
    rows = np.concatenate([rows_of(store, "val"), rows_of(store, "train")])
    outside = np.asarray(store.reader.split)[rows] != "train"
    flips = np.ones(len(rows), bool)
    views, mirrored = ViewDraws(SMALL, store).draw(0, rows, flips)
    assert not views[outside].any()
    assert mirrored[outside].all()  # their tokens are moved as before


def test_base_leaves_stored_views_aside(store, plain):
    rows, flips = rows_of(store, "train"), np.ones(48, bool)
    for draws in (ViewDraws(replace(SMALL, views="base"), store), ViewDraws(SMALL, plain)):
        views, mirrored = draws.draw(0, rows, flips)
        assert views is None
        assert mirrored is flips
    with pytest.raises(ConfigError, match="views='some' is unknown; one of all, base"):
        replace(SMALL, views="some")


def test_clips_and_masks_are_those_of_the_drawn_views(store):
    learner = make_learner(store, SMALL, mask_side=4)
    network, batch = learner.network, make_batch(learner, 3, 8)
    rows = batch.pool.rows.ravel()
    seen = set()
    for clip, row in enumerate(rows.tolist()):
        for view in range(6):
            tokens = torch.from_numpy(store.reader.tokens([row], [view])).float()
            stem = network.stem(tokens)[0].half().float()
            coverage, _ = store.mask_targets(np.array([row]), 4, views=np.array([view]))
            for flipped in (False, True):
                axes = [2] if flipped else []
                grid = stem.unflatten(1, (4, 4)).flip(axes).flatten(1, 2)
                if torch.equal(batch.seen[clip], grid):
                    seen.add((clip, view))
                    assert not (flipped and view in (0, 1))
                    assert torch.equal(batch.masks.coverage[clip], coverage[0].flip(axes))
    assert {clip for clip, _ in seen} == set(range(len(rows)))
    assert len({view for _, view in seen}) >= 4


def test_shuffled_masks_follow_frames_view_and_mirror_of_the_clips(tmp_path):
    options = {"frames": 6, "moving": True, "fingerprint": CROPPED, "views": NAMES}
    store = FeatureStore(make_shards(tmp_path / "s", **options), num_frames=3)
    learner = make_learner(store, replace(SMALL, masks="shuffled", flips=True), mask_side=4)
    network, batch = learner.network, make_batch(learner, 3, 8)
    seen = set()
    for clip, row in enumerate(batch.pool.rows.ravel().tolist()):
        source = learner.data.mask_source[row]
        assert source != row
        for view in range(6):
            tokens = torch.from_numpy(store.reader.tokens([row], [view])[0]).float()
            grid = network.stem(tokens).half().float().unflatten(1, (4, 4))
            for flipped, shown in ((False, grid), (True, grid.flip(2))):
                # Which of the 6 stored frames each of the 3 is.
                same = (batch.seen[clip][:, None] == shown.flatten(1, 2)).all(dim=(2, 3))
                if not same.any():
                    continue
                assert (same.sum(dim=1) == 1).all()
                bits = store.reader.masks([source], [view]).bits[0, same.int().argmax(dim=1), 0]
                first, end = WINDOWS[view]
                cells = np.unpackbits(bits, axis=-1).reshape(3, CELLS, CELLS)[:, first:end]
                share = cells[..., first:end].reshape(3, 4, (end - first) // 4, 4, -1)
                expected = share.mean(axis=(2, 4))
                expected = expected[..., ::-1] if flipped else expected
                np.testing.assert_allclose(batch.masks.coverage[clip], expected, atol=1e-6)
                seen.add((clip, view, flipped))
    assert {clip for clip, _, _ in seen} == set(range(len(batch.seen)))
    assert {1, 2, 3, 4, 5} <= {view for _, view, _ in seen}
    assert {flipped for _, view, flipped in seen if view > 1} == {False, True}


# Nothing else changes


@pytest.fixture(scope="module")
def trained(plain, tmp_path_factory):
    config = replace(SMALL, episodes=64 * 3)
    return config, train(config, plain, tmp_path_factory.mktemp("runs") / "plain").run_folder


def same_weights(one, other):
    expected = load_checkpoint(other).weights
    weights = load_checkpoint(one).weights
    assert weights.keys() == expected.keys()
    return all(torch.equal(value, expected[name]) for name, value in weights.items())


def test_base_training_ends_in_the_weights_of_shards_without_views(store, trained, tmp_path):
    config, run = trained
    train(replace(config, views="base"), store, tmp_path / "base")
    assert same_weights(tmp_path / "base", run)
    train(config, store, tmp_path / "all")
    assert not same_weights(tmp_path / "all", run)
    train(replace(config, cache_gib=0.0), store, tmp_path / "again")
    assert same_weights(tmp_path / "again", tmp_path / "all")


def test_evaluation_looks_at_base_views_alone(store, plain, trained):
    _, run = trained
    config = EvaluateConfig(episodes=200, device="cpu")
    accuracies = []
    for one in (store, plain):
        method, checkpoint = load_method("i2st", one, shards=one.reader.folder, run=run)
        accuracies.append(evaluate(method, one, config, checkpoint=checkpoint).accuracy)
    assert accuracies[0] == accuracies[1]


def test_shuffled_masks_are_those_of_the_same_view_of_another_video(store):
    config = replace(SMALL, masks="shuffled", flips=False)
    learner = make_learner(store, config, mask_side=4)
    batch = make_batch(learner, 2, 8)
    rows = batch.pool.rows.ravel()
    views = ViewDraws(config, store).draw(2, rows, np.zeros(len(rows), bool)).views
    for clip, (row, view) in enumerate(zip(rows.tolist(), views.tolist(), strict=True)):
        other = np.array([learner.data.mask_source[row]])
        coverage, _ = store.mask_targets(other, 4, views=np.array([view]))
        assert torch.equal(batch.masks.coverage[clip], coverage[0])
