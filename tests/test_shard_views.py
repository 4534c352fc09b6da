"""Stored views of train videos: the right view of the right row, and of train rows alone."""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_cases import (
    CLASS_NAMES,
    VIEWS,
    all_features,
    contents,
    extract,
    features,
    reseal,
    with_views,
    write_index,
)
from typer.testing import CliRunner

import cli
from pipeline.errors import ShardError
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import ShardReader
from pipeline.shards.verify import verify
from pipeline.shards.writer import ShardWriter

ROWS = sorted(map(with_views, all_features(12)), key=lambda row: row.video.video_id)
TRAIN = [i for i, row in enumerate(ROWS) if row.video.split == "train"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 videos in 3 shards, 6 of them train videos with 3 views."""
    path = tmp_path_factory.mktemp("views")
    extract(path, ROWS, fingerprint=VIEWS)
    return path


@pytest.fixture
def fresh(tmp_path):
    """One shard that a test may damage: train, test, train, val."""
    extract(tmp_path, [with_views(row) for row in all_features(4)], fingerprint=VIEWS)
    return tmp_path


def of_view(row, view):
    """What a row holds for view 0, 1, .. ."""
    return row if view == 0 else row.views[view - 1]


# What is written


def test_shard_holds_views_of_train_rows_readable_by_plain_h5py(fresh):
    rows = sorted(map(with_views, all_features(4)), key=lambda row: row.video.video_id)
    train = [i for i, row in enumerate(rows) if row.video.split == "train"]
    with h5py.File(fresh / "shard-00000.h5") as file:
        assert file["view_row"][:].tolist() == train == [0, 3]
        assert file["view_tokens"].shape == (2, 3, 2, 4, 6)
        assert file["view_mask_bits"].shape == (2, 3, 2, 4, 2048)
        for place, row in enumerate(train):
            for number, view in enumerate(rows[row].views):
                np.testing.assert_array_equal(file["view_tokens"][place, number], view.tokens)
                embedding = file["view_embedding"][place, number]
                np.testing.assert_array_equal(embedding, view.frame_embedding)
                indices = file["view_frame_indices"][place, number]
                np.testing.assert_array_equal(indices, view.frame_indices)
                np.testing.assert_array_equal(
                    file["view_mask_score"][place, number], view.masks.score
                )
        assert file.attrs["format_version"] == 1


def test_shard_without_train_rows_has_no_view_datasets(tmp_path):
    rows = [features(1, class_name="run"), features(2, class_name="sit")]
    extract(tmp_path, rows, fingerprint=VIEWS)
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        assert not [name for name in file if name.startswith("view")]
    assert ShardReader(tmp_path).tokens([0, 1], [0, 0]).shape == (2, 2, 4, 6)


def test_checksum_of_a_row_goes_on_with_its_views(tmp_path):
    row = with_views(features(1))
    with_them = extract(tmp_path / "with", [row], fingerprint=VIEWS).videos[0].sha256
    digest = hashlib.sha256()
    parts = [
        ("tokens <f2 (2, 4, 6)", row.tokens),
        ("frame_embedding <f2 (2, 5)", row.frame_embedding),
        ("frame_indices <i4 (2,)", row.frame_indices),
        ("num_frames_decoded <i4 ()", np.int32(41)),
        ("num_frames_expected <i4 ()", np.int32(49)),
        ("num_damaged_packets <i4 ()", np.int32(1)),
        ("mask_bits |u1 (2, 4, 2048)", row.masks.bits),
        ("mask_found |b1 (2, 4)", row.masks.found),
        ("mask_score <f2 (2, 4)", row.masks.score),
        ("view_tokens <f2 (3, 2, 4, 6)", [view.tokens for view in row.views]),
        ("view_embedding <f2 (3, 2, 5)", [view.frame_embedding for view in row.views]),
        ("view_frame_indices <i4 (3, 2)", [view.frame_indices for view in row.views]),
        ("view_mask_bits |u1 (3, 2, 4, 2048)", [view.masks.bits for view in row.views]),
        ("view_mask_found |b1 (3, 2, 4)", [view.masks.found for view in row.views]),
        ("view_mask_score <f2 (3, 2, 4)", [view.masks.score for view in row.views]),
    ]
    for header, value in parts:
        digest.update(header.encode() + b"\n" + np.asarray(value).tobytes())
    assert with_them == digest.hexdigest()


def test_digest_of_views_is_the_same_for_any_shard_size_and_order(tmp_path):
    whole = extract(tmp_path / "whole", ROWS, shard_videos=12, fingerprint=VIEWS)
    single = extract(tmp_path / "single", ROWS[::-1], shard_videos=1, fingerprint=VIEWS)
    assert whole.digest == single.digest
    plain = extract(tmp_path / "plain", [replace(row, views=()) for row in ROWS])
    assert plain.digest != whole.digest
    assert verify(tmp_path / "single") == []


def test_videos_without_views_keep_their_checksum_beside_others_that_have_them(folder, tmp_path):
    plain = extract(tmp_path, [replace(row, views=()) for row in ROWS])
    for one, other in zip(plain.videos, ShardIndex.load(folder).videos, strict=True):
        assert (one.sha256 == other.sha256) == (one.split != "train")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: replace(r, views=r.views[:2]), "clip 002 of train has 2 views; 3 were needed"),
        (lambda r: replace(r, views=()), "has 0 views; 3 were needed"),
        (
            lambda r: replace(
                r, masks=None, video=replace(r.video, split="test"), views=r.views[:1]
            ),
            "of test has 1 views; 0 were needed",
        ),
        (
            lambda r: replace(r, views=(*r.views[:2], replace(r.views[2], masks=None))),
            "has masks in some of its views",
        ),
        (
            lambda r: replace(r, views=(*r.views[:2], replace(r.views[2], tokens=r.tokens[:1]))),
            r"a view's tokens of climb/clip 002 is float16 \(1, 4, 6\)",
        ),
        (
            lambda r: replace(
                r, views=(*r.views[:2], replace(r.views[2], frame_embedding=np.zeros((2, 5))))
            ),
            "a view's frame_embedding of climb/clip 002 is float64",
        ),
    ],
)
def test_writer_refuses_views_that_break_the_format(tmp_path, change, match):
    writer = ShardWriter(tmp_path, VIEWS, class_names=CLASS_NAMES)
    rows = [with_views(features(1)), change(with_views(features(2)))]
    with pytest.raises(ValueError, match=match):
        writer.write(0, rows, [])
    assert list(tmp_path.iterdir()) == []


# Reading


def test_reader_returns_the_view_asked_of_each_row(folder):
    shards = ShardReader(folder)
    assert shards.view_names == ("flip", "early", "late")
    rows = [TRAIN[4], 1, TRAIN[0], TRAIN[4], TRAIN[2], TRAIN[0]]
    views = [2, 0, 3, 0, 1, 3]
    tokens, embedding = shards.tokens(rows, views), shards.frame_embedding(rows, np.array(views))
    indices = shards.frame_indices(rows, views)
    for position, (row, view) in enumerate(zip(rows, views, strict=True)):
        expected = of_view(ROWS[row], view)
        np.testing.assert_array_equal(tokens[position], expected.tokens)
        np.testing.assert_array_equal(embedding[position], expected.frame_embedding)
        np.testing.assert_array_equal(indices[position], expected.frame_indices)
    masks = shards.masks(TRAIN, [0, 1, 2, 3, 0, 1])
    for position, (row, view) in enumerate(zip(TRAIN, [0, 1, 2, 3, 0, 1], strict=True)):
        expected = of_view(ROWS[row], view).masks
        np.testing.assert_array_equal(masks.bits[position], expected.bits)
        np.testing.assert_array_equal(masks.found[position], expected.found)
        np.testing.assert_array_equal(masks.score[position], expected.score)


def test_reader_returns_the_base_view_unless_told(folder):
    shards = ShardReader(folder)
    everything = range(12)
    np.testing.assert_array_equal(shards.tokens(everything), [row.tokens for row in ROWS])
    np.testing.assert_array_equal(
        shards.tokens(everything), shards.tokens(everything, np.zeros(12, int))
    )


@pytest.mark.parametrize("split", ["val", "test"])
def test_reader_refuses_views_of_another_split(folder, split):
    shards = ShardReader(folder)
    row = next(i for i, row in enumerate(ROWS) if row.video.split == split)
    match = f"is of split {split}; only train videos have stored views"
    for read in (shards.tokens, shards.frame_embedding, shards.frame_indices):
        with pytest.raises(ShardError, match=match):
            read([TRAIN[0], row], [1, 1])


@pytest.mark.parametrize(
    ("views", "error", "match"),
    [
        ([4], ShardError, "4 to 4, .* stores views 0 to 3; .*`--views`"),
        ([-1], ShardError, "-1 to -1"),
        ([0.0], ValueError, "views must be .* got float64"),
        ([0, 0], ValueError, r"views are \(2,\), rows \(1,\)"),
    ],
)
def test_reader_refuses_views_that_are_none(folder, views, error, match):
    with pytest.raises(error, match=match):
        ShardReader(folder).tokens([0], views)


def test_reader_of_a_dataset_without_views_says_how_to_get_them(tmp_path):
    extract(tmp_path, all_features(4))
    shards = ShardReader(tmp_path)
    assert shards.view_names == ()
    with pytest.raises(ShardError, match="stores views 0 to 0; extract into another folder"):
        shards.tokens([0], [1])


@st.composite
def asked(draw):
    rows = draw(st.lists(st.integers(0, 11), max_size=12))
    return rows, [draw(st.integers(0, 3)) if row in TRAIN else 0 for row in rows]


@settings(max_examples=25)
@given(asked(), st.integers(1, 12))
def test_reader_returns_any_views_of_any_rows_from_any_shard_size(question, shard_videos):
    rows, views = question
    with tempfile.TemporaryDirectory() as name:
        extract(Path(name), ROWS, shard_videos=shard_videos, fingerprint=VIEWS)
        tokens = ShardReader(Path(name)).tokens(np.array(rows, int), np.array(views, int))
    assert tokens.shape == (len(rows), 2, 4, 6)
    for got, row, view in zip(tokens, rows, views, strict=True):
        assert got.tobytes() == of_view(ROWS[row], view).tokens.tobytes()


def test_info_names_what_is_stored_and_the_views(folder, tmp_path):
    def info(path, *flags):
        return CliRunner().invoke(cli.app, ["info", str(path), *flags]).stdout

    def lines(path):
        return dict(line.split(None, 1) for line in info(path).splitlines()[:14])

    extract(tmp_path, all_features(4))
    assert lines(folder)["views"] == "flip, early, late"
    assert lines(tmp_path)["views"] == "-"
    for path, views in ((folder, ["flip", "early", "late"]), (tmp_path, [])):
        assert (lines(path)["stores"], lines(path)["tokens"]) == ("features", "4 x 6 per frame")
        told = json.loads(info(path, "--json"))
        assert (told["stores"], told["views"], told["tokens"]) == ("features", views, [4, 6])


# Damage


def test_views_are_resumed_to_the_same_bytes(folder, tmp_path):
    extract(tmp_path, ROWS[:5], fingerprint=VIEWS)
    extract(tmp_path, ROWS, fingerprint=VIEWS)
    assert contents(tmp_path) == contents(folder)


def test_verify_finds_a_resealed_change_of_any_view(fresh):
    for name in ("view_tokens", "view_mask_bits", "view_frame_indices"):
        with h5py.File(fresh / "shard-00000.h5", "r+") as file:
            kept = file[name][1, 2]
            file[name][1, 2] = 1
        reseal(fresh)
        (problem,) = verify(fresh)
        assert "row 3: sha256 of 'wave/clip 001'" in problem
        with h5py.File(fresh / "shard-00000.h5", "r+") as file:
            file[name][1, 2] = kept
        reseal(fresh)
        assert verify(fresh) == []


def test_view_rows_that_are_not_the_train_rows_are_refused(fresh):
    with h5py.File(fresh / "shard-00000.h5", "r+") as file:
        file["view_row"][1] = 1
    reseal(fresh)
    with pytest.raises(ShardError, match="view_row does not list the train videos"):
        ShardReader(fresh).tokens([0])
    assert "view_row does not list" in verify(fresh)[0]


@pytest.mark.parametrize("key", ["view", "segmenter", "prompts"])
def test_index_whose_settings_are_no_table_is_refused(fresh, key):
    index = ShardIndex.load(fresh)
    write_index(fresh, replace(index, fingerprint={**index.fingerprint, key: "whole"}))
    with pytest.raises(ShardError, match=f"malformed at {key}"):
        ShardIndex.load(fresh)


@pytest.mark.parametrize(
    ("views", "match"),
    [
        (["flip"], r"view_tokens has shape \(2, 3, 2, 4, 6\), \(2, 1, 2, 4, 6\) expected"),
        ([], "19 objects, 12 expected"),
        (["flip", "flip"], "malformed at views, which must differ"),
        ("flip", "malformed at views"),
        ([1], "malformed at views"),
    ],
)
def test_index_that_lists_other_views_than_the_shard_holds_is_refused(fresh, views, match):
    index = ShardIndex.load(fresh)
    write_index(fresh, replace(index, fingerprint={**index.fingerprint, "views": views}))
    with pytest.raises(ShardError, match=match):
        ShardReader(fresh).tokens([0])
