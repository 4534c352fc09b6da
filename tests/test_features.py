import numpy as np
import pytest
import torch
from synthetic_shards import CELLS, FINGERPRINT, make_shards

from i2st_model.config import preset
from i2st_model.drawing.draws import Stream, Words
from i2st_model.features import FeatureStore
from i2st_model.stem import Stem
from i2st_model.stem_features import ClipFeatures, StemFeatures
from i2st_model.training.schedules import learning_rate_factor, num_steps, random_positions
from pipeline.errors import ConfigError, ShardError


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "toy", frames=6)


@pytest.fixture(scope="module")
def store(reader):
    return FeatureStore(reader)


def test_tokens_are_the_stored_ones_in_the_order_of_rows(reader, store):
    rows = np.array([20, 3, 3])
    expected = torch.from_numpy(reader.tokens([3])[0].astype(np.float32))
    tokens = store.tokens(rows)
    assert tokens.shape == (3, 6, 16, 16)
    assert tokens.dtype == torch.float32
    assert torch.equal(tokens[1], expected)
    assert torch.equal(tokens[2], expected)


def test_clips_take_the_segment_centres_of_the_stored_frames(reader):
    store = FeatureStore(reader, num_frames=3)
    whole = FeatureStore(reader).frame_embedding(np.arange(4))
    # Segments of 6 frames in 3: 0-1, 2-3, 4-5; the centre of each is its upper frame.
    assert torch.equal(store.frame_embedding(np.arange(4)), whole[:, [1, 3, 5]])
    tokens = FeatureStore(reader).tokens(np.arange(2))
    chosen = np.array([[0, 2, 5], [1, 3, 4]])
    expected = torch.stack([tokens[0, [0, 2, 5]], tokens[1, [1, 3, 4]]])
    assert torch.equal(store.tokens(np.arange(2), chosen), expected)


def test_store_refuses_more_frames_than_are_stored(reader):
    with pytest.raises(ConfigError, match="frames=7 per clip, the shards of toy store 6"):
        FeatureStore(reader, num_frames=7)


def test_classes_of_a_split_are_those_with_videos_in_manifest_order(store):
    assert store.classes_of("val") == [f"val {n}" for n in range(5)]
    # Rows are sorted by video id: 5 test classes, 6 train classes, 5 val classes of 8 videos.
    assert store.rows_of(["val 1", "train 0"]).tolist() == [*range(40, 48), *range(96, 104)]
    assert store.reader.video_ids[96] == "val 1/00"
    with pytest.raises(ConfigError, match="toy has no split 'dev'; known: train, val, test"):
        store.classes_of("dev")
    with pytest.raises(ConfigError, match="toy has no class 'wave'"):
        store.rows_of(["wave"])


def test_mean_embedding_equals_a_float64_mean(reader, store):
    rows = store.rows_of(store.classes_of("train"))
    expected = reader.frame_embedding(rows).astype(np.float64).mean(axis=(0, 1))
    np.testing.assert_allclose(store.mean_embedding(rows).numpy(), expected, rtol=1e-6, atol=1e-7)


def test_token_sample_is_bounded_and_of_the_given_videos(reader, store):
    rows = store.rows_of(store.classes_of("train"))
    known = {token.tobytes() for token in reader.tokens(rows).reshape(-1, 16)}
    for most, frames in ((10, 1), (200, 12), (5000, 288)):
        sample = store.token_sample(rows, seed=0, max_tokens=most)
        assert len(sample) == frames * 16
        cells = {token.tobytes() for token in sample.half().numpy()}
        assert cells <= known
        assert len(cells) == frames * 16  # no frame is taken twice
    assert torch.equal(
        store.token_sample(rows, seed=1, max_tokens=200),
        store.token_sample(rows, seed=1, max_tokens=200),
    )


def test_mask_targets_cover_the_box_that_was_drawn(reader, store):
    rows = np.array([40, 45])
    coverage, valid = store.mask_targets(rows, 4)
    bits = reader.masks(rows).bits[:, :, 0]
    fine = np.unpackbits(bits, axis=-1).reshape(2, 6, CELLS, CELLS)
    expected = fine.reshape(2, 6, 4, 32, 4, 32).mean(axis=(3, 5))
    np.testing.assert_allclose(coverage.numpy(), expected, atol=1e-6)
    assert coverage.sum() == pytest.approx(2 * 6 * 4)  # a 2 x 2 box in every frame
    assert valid.all()
    picked, _ = store.mask_targets(rows, 4, np.array([[0, 1], [4, 5]]))
    assert picked.shape == (2, 2, 4, 4)


def test_mask_targets_lie_in_the_encoders_view(tmp_path):
    cropped = {**FINGERPRINT, "view": {"geometry": "center_crop"}}
    store = FeatureStore(make_shards(tmp_path / "s", fingerprint=cropped))
    row = store.rows_of(["train 0"])[:1]
    fine = np.unpackbits(store.reader.masks(row).bits[0, 0, 0]).reshape(CELLS, CELLS)
    view = fine[8:120, 8:120]  # 16 / 256 of the frame is cut from each side
    expected = view.reshape(4, 28, 4, 28).mean(axis=(1, 3))
    np.testing.assert_allclose(store.mask_targets(row, 4)[0][0, 0].numpy(), expected, atol=1e-6)


def test_mask_targets_leave_out_frames_without_a_usable_mask(reader, store, monkeypatch):
    masks = reader.masks([40])
    bits, found = masks.bits.copy(), masks.found.copy()
    found[0, 0] = False  # nothing was found
    bits[0, 1] = 0  # an empty mask
    bits[0, 2] = 255  # the whole frame
    given = masks._replace(bits=bits, found=found)
    monkeypatch.setattr(reader, "masks", lambda rows, views: given)
    _, valid = store.mask_targets(np.array([40]), 4)
    assert valid.tolist() == [[False, False, False, True, True, True]]


def test_mask_targets_of_a_test_video_are_refused(store):
    test_row = store.rows_of(["test 0"])[:1]
    with pytest.raises(ShardError, match="is of split test; masks"):
        store.mask_targets(test_row, 4)


@pytest.mark.parametrize("grid", [4, 7])
def test_stem_features_are_the_same_kept_or_computed(tmp_path, grid):
    store = FeatureStore(
        make_shards(tmp_path / "s", grid=grid, channels=48, frames=5), num_frames=3
    )
    stem = Stem(preset("i2st", token_dim=48, grid=grid, pca_dim=32))
    rows = store.rows_of(store.classes_of("train"))
    stem.fit(store.token_sample(rows, seed=0, max_tokens=2000))
    device = torch.device("cpu")
    outputs = StemFeatures(store, stem, device)
    kept = ClipFeatures(store, outputs, rows, budget_bytes=1 << 30, device=device)
    computed = ClipFeatures(store, outputs, rows, budget_bytes=0, device=device)
    assert (kept.cached, computed.cached) == (True, False)
    assert kept.size_bytes == len(rows) * 5 * grid**2 * 32 * 2
    some = rows[[4, 1, 30]]
    chosen = np.array([[0, 1, 4], [1, 2, 3], [0, 3, 4]])
    for positions in (None, chosen):
        assert torch.equal(kept.clips(some, positions), computed.clips(some, positions))
    expected = stem(store.tokens(some, chosen))
    torch.testing.assert_close(kept.clips(some, chosen), expected, rtol=1e-3, atol=1e-3)


def test_learning_rate_warms_up_linearly_then_falls_as_a_half_cosine():
    factors = [learning_rate_factor(step, 100, 0.05) for step in range(100)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    for step in range(5, 100):
        assert factors[step] == pytest.approx((1 + np.cos(np.pi * (step - 5) / 95)) / 2)
    assert 0 < factors[-1] < 1e-3
    assert learning_rate_factor(0, 1, 0.05) == 1.0


@pytest.mark.parametrize(("episodes", "steps"), [(10_000, 157), (64, 1), (65, 2), (1, 1)])
def test_steps_hold_all_episodes(episodes, steps):
    assert num_steps(episodes, 64) == steps


def test_random_positions_take_one_frame_of_each_segment_uniformly():
    positions = random_positions(Words(Stream.AUGMENT, 0, 0), 3000, 8, 3)
    # 8 frames in 3 segments: 0-1, 2-4, 5-7.
    for column, segment in enumerate(([0, 1], [2, 3, 4], [5, 6, 7])):
        counts = np.bincount(positions[:, column], minlength=8)
        assert np.flatnonzero(counts).tolist() == segment
        assert abs(counts[segment] - 3000 / len(segment)).max() < 150
    same = random_positions(Words(Stream.AUGMENT, 0, 0), 5, 4, 4)
    assert (same == np.arange(4)).all()
