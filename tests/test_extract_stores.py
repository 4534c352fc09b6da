"""Extraction of stored views and of frames, and the estimate of what one takes."""

from io import BytesIO

import extraction_fakes as fakes
import numpy as np
import pytest
from extraction_fake_decoder import pictures
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.extract import extract
from pipeline.extraction.estimate import estimate_extraction
from pipeline.masks import unpack_masks
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import ShardReader
from pipeline.views import View, square_view

pytestmark = pytest.mark.usefixtures("fake_backends")

# Of 12 frames in 4 segments: the centres, and a quarter of a segment before and behind them.
BASE, EARLY, LATE = [1, 4, 7, 10], [0, 3, 6, 9], [2, 5, 8, 11]
VIEWS = {
    "flip": (BASE, View("flip", mirrored=True)),
    "early": (EARLY, View("early")),
    "late": (LATE, View("late")),
    "wide": (BASE, View("wide", window=(0, 128))),
    "near": (BASE, View("near", window=(16, 112))),
}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "videos"


@pytest.fixture
def dataset(root):
    return fakes.make_dataset(root)


def frames_of(video_id, indices):
    name, number = video_id.split("/")
    what = {"seed": len(name) * 1000 + int(number), "frames": 12, "does": ""}
    return pictures(what)[indices]


def features_of(video_id, indices, view):
    views = square_view(frames_of(video_id, indices), image_size=fakes.SIDE, view=view)
    return np.stack([fakes.quarter_means(one) for one in views]).astype(np.float16)


def test_extract_stores_the_views_of_train_videos(root, tmp_path, dataset):
    manifest, videos = dataset
    plain = fakes.config(root, tmp_path / "plain", segmenter=f"spy:{tmp_path / 'spied'}")
    extract(plain, manifest, videos)
    config = fakes.config(
        root,
        tmp_path / "out",
        segmenter=f"spy:{tmp_path / 'spied'}",
        views=("scale", "shift", "flip"),
    )
    extract(config, manifest, videos)
    reader, without = ShardReader(tmp_path / "out"), ShardReader(tmp_path / "plain")
    assert list(reader.view_names) == list(VIEWS)
    rows = list(range(len(reader.video_ids)))
    np.testing.assert_array_equal(reader.tokens(rows), without.tokens(rows))
    row = list(reader.video_ids).index("jump/02")
    base = unpack_masks(reader.masks([row]).bits)[0, :, 0]
    for number, (name, (indices, view)) in enumerate(VIEWS.items(), start=1):
        expected = features_of("jump/02", indices, view)
        stored = reader.tokens([row], np.array([number]))[0]
        np.testing.assert_array_equal(stored, expected, name)
        masks = reader.masks([row], np.array([number]))
        actor = unpack_masks(masks.bits)[0, :, 0]
        if view.mirrored:
            np.testing.assert_array_equal(actor, base[..., ::-1])
        else:
            assert masks.bits[0, :, 0, 0].tolist() == indices, name


@pytest.mark.parametrize("changes", [{"workers": 2}, {"shard_videos": 2, "hands": 1}], ids=str)
def test_extract_with_views_gives_one_digest(root, tmp_path, dataset, changes):
    config = fakes.config(root, tmp_path / "out", views=("shift",))
    other = fakes.config(root, tmp_path / "other", views=("shift",), **changes)
    assert extract(config, *dataset).digest == extract(other, *dataset).digest


def test_extract_stores_frames_and_loads_no_encoder(root, tmp_path, dataset):
    config = fakes.config(
        root,
        tmp_path / "out",
        store="frames",
        frame_side=16,
        encoder="there is none",
        segmenter=f"spy:{tmp_path / 'spied'}",
    )
    report = extract(config, *dataset)
    assert [failure.video_id for failure in report.failures] == ["clap/03"]
    reader = ShardReader(tmp_path / "out")
    row = list(reader.video_ids).index("jump/02")
    expected = tuple(jpeg_of(one) for one in frames_of("jump/02", BASE))
    assert reader.jpegs([row])[0] == expected
    assert reader.masks([row]).bits[0, :, 0, 0].tolist() == BASE
    index = ShardIndex.load(tmp_path / "out")
    assert index.fingerprint["store"]["frame_side"] == 16
    assert "encoder" not in index.fingerprint
    again = extract(fakes.config(root, tmp_path / "out", **changes_of(config)), *dataset)
    assert (again.num_new, again.digest) == (0, report.digest)


def changes_of(config):
    names = ("store", "frame_side", "encoder", "segmenter")
    return {name: getattr(config, name) for name in names}


def jpeg_of(frame):
    """24 x 32 pixels to a short side of 16."""
    file = BytesIO()
    small = Image.fromarray(frame).resize((21, 16), Image.Resampling.BILINEAR)
    small.save(file, "JPEG", quality=95, subsampling="4:4:4")
    return file.getvalue()


def test_config_refuses_views_of_stored_frames_and_unknown_ones(root, tmp_path):
    with pytest.raises(ConfigError, match="views flip beside stored frames"):
        fakes.config(root, tmp_path, store="frames", views=("flip",))
    with pytest.raises(ConfigError, match="unknown view 'mirror'; known: flip, shift, scale"):
        fakes.config(root, tmp_path, views=("mirror",))
    with pytest.raises(ConfigError, match="unknown store 'pixels'; known: features, frames"):
        fakes.config(root, tmp_path, store="pixels")


@pytest.mark.parametrize("dataset", ["ssv2-small", "ssv2-full", "Something-else"])
def test_config_refuses_mirrored_views_where_classes_tell_left_from_right(root, tmp_path, dataset):
    with pytest.raises(ConfigError, match=f"views shift, flip mirror .* {dataset}.*out of"):
        fakes.config(root, tmp_path, dataset=dataset, views=("shift", "flip"))
    without = fakes.config(root, tmp_path, dataset=dataset, views=("shift", "scale"))
    assert [view.name for view in without.stored_views] == ["early", "late", "wide", "near"]


@pytest.mark.parametrize("changes", [{}, {"store": "frames"}, {"views": ("flip",)}], ids=str)
def test_estimate_is_near_what_the_extraction_takes_and_writes_nothing(
    root, tmp_path, dataset, changes
):
    config = fakes.config(root, tmp_path / "out", batch_frames=4, **changes)
    estimate = estimate_extraction(config, *dataset)
    assert not (tmp_path / "out").exists()
    assert estimate.num_todo == {"train": 10, "val": 5, "test": 5}
    assert (estimate.num_videos, estimate.num_done, estimate.num_probed) == (20, 0, 8)
    assert estimate.seconds > 0
    report = extract(config, *dataset)
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.h5"))
    # What HDF5 adds to a shard is a few kB, and most of such small ones.
    assert estimate.size_bytes < size_bytes < estimate.size_bytes + 3 * 20_000
    done = estimate_extraction(config, *dataset)
    assert (done.num_done, done.seconds, done.size_bytes) == (report.num_done, None, None)


def test_estimate_counts_what_is_left_and_leaves_leftovers_alone(root, tmp_path):
    dataset = fakes.make_dataset(root, does={"wave/04": "raise"})
    config = fakes.config(root, tmp_path / "out", limit=4)
    extract(config, *dataset)
    (tmp_path / "out" / "shard-00009.h5.tmp").touch()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    estimate = estimate_extraction(fakes.config(root, tmp_path / "out"), *dataset)
    assert (estimate.num_done, sum(estimate.num_todo.values())) == (4, 16)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(ConfigError, match=r"frames\.count 4 there and 2 here"):
        estimate_extraction(fakes.config(root, tmp_path / "out", frames=2), *dataset)
