"""Stores of JPEG frames: what goes in comes out, and nothing from a file that is not ours."""

import hashlib
import json
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shard_cases import (
    CLASS_NAMES,
    FINGERPRINT,
    FRAMES,
    all_features,
    contents,
    extract,
    features,
    frames_row,
    reseal,
    write_index,
)
from typer.testing import CliRunner

import cli
from pipeline.errors import ShardError, VideoError
from pipeline.shards.index import ShardIndex
from pipeline.shards.jpegs import decode_frame, encode_frames, frame_store
from pipeline.shards.reader import ShardReader
from pipeline.shards.verify import verify
from pipeline.shards.writer import ShardWriter

ROWS = sorted(
    (frames_row(number, class_name=CLASS_NAMES[number % 4]) for number in range(12)),
    key=lambda row: row.video.video_id,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 videos of two sizes in 3 shards, of all splits."""
    path = tmp_path_factory.mktemp("frames")
    extract(path, ROWS, fingerprint=FRAMES)
    return path


@pytest.fixture
def fresh(tmp_path):
    extract(tmp_path, [frames_row(number) for number in range(3)], fingerprint=FRAMES)
    return tmp_path


# One frame


def test_frames_are_shrunk_to_the_short_side_and_stay_as_seen():
    y, x = np.mgrid[:300, :400].astype(np.float32)
    smooth = np.stack([127 + 100 * np.sin(x / 40), 127 + 100 * np.cos(y / 30), x / 2], axis=-1)
    jpegs, size = encode_frames(smooth[None].astype(np.uint8), 150)
    assert size == (150, 200)
    expected = Image.fromarray(smooth.astype(np.uint8)).resize(
        (200, 150), Image.Resampling.BILINEAR
    )
    difference = decode_frame(jpegs[0], size).astype(int) - np.asarray(expected)
    assert abs(difference).mean() < 1.0
    assert abs(difference).max() < 12


def test_small_frames_keep_their_size():
    noise = np.random.default_rng(0).integers(0, 256, (2, 24, 30, 3), dtype=np.uint8)
    _, size = encode_frames(noise, 256)
    assert size == (24, 30)


def test_jpegs_are_plain_444_files_of_the_quality_that_the_fingerprint_names():
    noise = np.random.default_rng(0).integers(0, 256, (1, 24, 30, 3), dtype=np.uint8)
    (data,), _ = encode_frames(noise)
    with Image.open(BytesIO(data)) as picture:
        # Horizontal and vertical sampling factors of the three components.
        assert [layer[1:3] for layer in picture.layer] == [(1, 1)] * 3
        tables = picture.quantization
    again = BytesIO()
    Image.fromarray(noise[0]).save(again, "JPEG", quality=95, subsampling=0)
    with Image.open(again) as picture:
        assert picture.quantization == tables
    store = frame_store(128)
    assert (store["kind"], store["frame_side"]) == ("frames", 128)
    assert store["format"] == {"name": "jpeg", "quality": 95, "subsampling": "4:4:4"}
    assert store["pillow"]
    assert "None" not in store["libjpeg"]


def test_frames_too_long_for_a_jpeg_are_refused():
    with pytest.raises(VideoError, match="frames of 70000x8 pixels; at most 65500"):
        encode_frames(np.zeros((1, 8, 70_000, 3), np.uint8))


def test_bytes_that_are_no_jpeg_of_the_size_are_refused():
    noise = np.random.default_rng(0).integers(0, 256, (1, 24, 30, 3), dtype=np.uint8)
    (data,), _ = encode_frames(noise)
    png = BytesIO()
    Image.fromarray(noise[0]).save(png, "PNG")
    grey = BytesIO()
    Image.fromarray(noise[0, :, :, 0]).save(grey, "JPEG")
    for wrong in (b"", b"x" * 100, data[:-200], data[:10], png.getvalue(), grey.getvalue()):
        with pytest.raises(ShardError, match="a stored frame does not decode"):
            decode_frame(wrong, (24, 30))
    with pytest.raises(ShardError, match=r"RGB \(30, 24\), needed RGB \(30, 23\)"):
        decode_frame(data, (23, 30))


# Rows


def test_reader_returns_the_bytes_and_pictures_of_rows_in_the_order_asked(folder):
    shards = ShardReader(folder)
    rows = [11, 0, 5, 5, 2]
    assert shards.index.stores == "frames"
    assert shards.jpegs(rows) == [ROWS[row].jpegs for row in rows]
    for images, row in zip(shards.images(rows), rows, strict=True):
        assert images.shape == (2, *ROWS[row].frame_size, 3)
        for image, data in zip(images, ROWS[row].jpegs, strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(BytesIO(data))))
    assert shards.images([]) == []
    train = [i for i, row in enumerate(ROWS) if row.masks is not None]
    np.testing.assert_array_equal(
        shards.masks(train).bits, np.stack([ROWS[row].masks.bits for row in train])
    )
    np.testing.assert_array_equal(shards.frame_indices([3, 1])[0], ROWS[3].frame_indices)


def test_reader_says_how_to_get_what_a_store_does_not_hold(folder, tmp_path):
    frames = ShardReader(folder)
    for read in (frames.tokens, frames.frame_embedding):
        with pytest.raises(
            ShardError, match="holds frames; features were needed.*--store features"
        ):
            read([0])
    extract(tmp_path, all_features(4))
    stored = ShardReader(tmp_path)
    assert stored.index.stores == "features"
    for read in (stored.jpegs, stored.images):
        with pytest.raises(ShardError, match="holds features; frames were needed.*--store frames"):
            read([0])


def test_shard_of_frames_is_readable_by_plain_h5py(fresh):
    with h5py.File(fresh / "shard-00000.h5") as file:
        ends = file["jpeg_end"][:]
        data = file["jpeg"][:].tobytes()
        assert file["frame_size"][:].tolist() == [[24, 30], [24, 40], [24, 30]]
        assert {"tokens", "frame_embedding"}.isdisjoint(file)
    files = [own for number in range(3) for own in frames_row(number).jpegs]
    assert data == b"".join(files)
    assert ends.ravel().tolist() == np.cumsum([len(own) for own in files]).tolist()


def test_checksum_of_a_row_of_frames_is_that_of_its_own_bytes(tmp_path):
    rows = [frames_row(1), frames_row(2)]
    extract(tmp_path, rows, fingerprint=FRAMES)
    row = rows[1]
    lengths = np.cumsum([len(own) for own in row.jpegs])
    digest = hashlib.sha256()
    for header, value in [
        (f"jpeg |u1 ({lengths[-1]},)", b"".join(row.jpegs)),
        ("jpeg_end <i8 (2,)", lengths.astype("<i8").tobytes()),
        ("frame_size <i4 (2,)", np.array([24, 30], "<i4").tobytes()),
        ("frame_indices <i4 (2,)", row.frame_indices.tobytes()),
        ("num_frames_decoded <i4 ()", np.int32(42).tobytes()),
        ("num_frames_expected <i4 ()", np.int32(50).tobytes()),
        ("num_damaged_packets <i4 ()", np.int32(0).tobytes()),
        ("mask_bits |u1 (2, 4, 2048)", row.masks.bits.tobytes()),
        ("mask_found |b1 (2, 4)", row.masks.found.tobytes()),
        ("mask_score <f2 (2, 4)", row.masks.score.tobytes()),
    ]:
        digest.update(header.encode() + b"\n" + value)
    assert ShardIndex.load(tmp_path).videos[1].sha256 == digest.hexdigest()


def test_digest_of_frames_is_the_same_for_any_shard_size_and_resumes(folder, tmp_path):
    single = extract(tmp_path / "single", ROWS[::-1], shard_videos=1, fingerprint=FRAMES)
    assert single.digest == ShardIndex.load(folder).digest
    extract(tmp_path / "later", ROWS[:5], fingerprint=FRAMES)
    extract(tmp_path / "later", ROWS, fingerprint=FRAMES)
    assert contents(tmp_path / "later") == contents(folder)
    assert verify(folder) == verify(tmp_path / "single") == []


@settings(max_examples=20)
@given(
    st.lists(
        st.lists(st.binary(min_size=1, max_size=40), min_size=3, max_size=3), min_size=1, max_size=8
    ),
    st.integers(1, 4),
)
def test_reader_returns_any_bytes_that_were_written(files, shard_videos):
    rows = [
        replace(
            frames_row(number),
            jpegs=tuple(own),
            frame_indices=np.arange(3, dtype=np.int32),
            masks=None,
        )
        for number, own in enumerate(files)
    ]
    with tempfile.TemporaryDirectory() as name:
        extract(Path(name), rows, shard_videos=shard_videos, fingerprint=FRAMES)
        assert ShardReader(Path(name)).jpegs(range(len(rows))) == [row.jpegs for row in rows]
        assert verify(Path(name)) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: features(2), "is a VideoFeatures; the fingerprint says frames"),
        (lambda r: replace(r, jpegs=r.jpegs[:1]), "has 1 pictures"),
        (lambda r: replace(r, jpegs=(b"", b"x")), "some of them empty"),
        (
            lambda r: replace(r, jpegs=r.jpegs[:1], frame_indices=r.frame_indices[:1]),
            r"frame_indices of .* \(1,\)",
        ),
    ],
)
def test_writer_refuses_rows_that_break_the_format(tmp_path, change, match):
    writer = ShardWriter(tmp_path, FRAMES, class_names=CLASS_NAMES)
    with pytest.raises(ValueError, match=match):
        writer.write(0, [frames_row(1), change(frames_row(2))], [])
    assert list(tmp_path.iterdir()) == []


def test_writer_of_features_refuses_frames(tmp_path):
    writer = ShardWriter(tmp_path, FINGERPRINT, class_names=CLASS_NAMES)
    with pytest.raises(ValueError, match="is a VideoFrames; the fingerprint says features"):
        writer.write(0, [frames_row(1)], [])


# Damage


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("jpeg_end", (2, 1), 1 << 40), ("jpeg_end", (0, 0), 0), ("jpeg_end", (1, 0), -5)],
)
def test_ends_that_lead_out_of_the_shard_are_refused(fresh, name, index, value):
    with h5py.File(fresh / "shard-00000.h5", "r+") as file:
        file[name][index] = value
    reseal(fresh)
    with pytest.raises(ShardError, match="jpeg_end does not divide jpeg"):
        ShardReader(fresh).jpegs([0])
    assert "jpeg_end does not divide" in verify(fresh)[0]


def test_ends_whose_differences_overflow_are_refused(tmp_path):
    rows = [frames_row(number) for number in range(2)]
    extract(tmp_path, rows, fingerprint=FRAMES)
    with h5py.File(tmp_path / "shard-00000.h5", "r+") as file:
        size = len(file["jpeg"])
        # Each is more than the one before it, counted modulo 2^64.
        file["jpeg_end"][:] = [[2**63 - 1, -(2**63)], [-1, size]]
    reseal(tmp_path)
    with pytest.raises(ShardError, match="jpeg_end does not divide jpeg"):
        ShardReader(tmp_path).jpegs([0])


def test_changed_bytes_and_sizes_are_noticed_though_the_index_agrees(fresh):
    with h5py.File(fresh / "shard-00000.h5", "r+") as file:
        file["jpeg"][int(file["jpeg_end"][0, 1]) + 2] ^= 0xFF
        file["frame_size"][0] = [24, 10_000]
    reseal(fresh)
    first, second = verify(fresh)
    assert "row 0: sha256" in first
    assert "row 1: sha256" in second
    with pytest.raises(ShardError, match="a stored frame does not decode"):
        ShardReader(fresh).images([0])


def test_jpeg_of_another_kind_or_place_is_refused(fresh):
    def shape(file):
        data = file["jpeg"][:]
        del file["jpeg"]
        file["jpeg"] = data[:, None]

    def dtype(file):
        data = file["jpeg"][:]
        del file["jpeg"]
        file["jpeg"] = data.astype("i1")

    def outside(file):
        del file["jpeg"]
        file.create_dataset("jpeg", (10**9,), "u1")

    data = (fresh / "shard-00000.h5").read_bytes()
    for change, match in (
        (shape, r"jpeg has shape \(\d+, 1\), \(-1,\) expected"),
        (dtype, "jpeg is not uint8"),
        (outside, "jpeg lies outside the file"),
    ):
        (fresh / "shard-00000.h5").write_bytes(data)
        with h5py.File(fresh / "shard-00000.h5", "r+") as file:
            change(file)
        reseal(fresh)
        with pytest.raises(ShardError, match=match):
            ShardReader(fresh).jpegs([0])


@pytest.mark.parametrize(
    "change",
    [
        {"store": {"kind": "flow"}},
        {"store": {}},
        {"store": "frames"},
        {"store": FRAMES["store"], "views": ["flip"]},
    ],
)
def test_index_of_an_unknown_kind_of_store_is_refused(fresh, change):
    index = ShardIndex.load(fresh)
    write_index(fresh, replace(index, fingerprint=change))
    with pytest.raises(ShardError, match="malformed at"):
        ShardIndex.load(fresh)


# Commands


def test_commands_read_a_frame_store_and_training_says_what_it_needs(fresh, tmp_path_factory):
    def i2st(*words):
        return CliRunner().invoke(cli.app, [str(word) for word in words])

    shown = json.loads(i2st("info", fresh, "--json").stdout)
    assert (shown["stores"], shown["tokens"], shown["embedding"]) == ("frames", None, None)
    assert (shown["views"], shown["frames"], shown["masks"]) == ([], 2, True)
    words = [line.split() for line in i2st("info", fresh).stdout.splitlines()]
    assert ["stores", "frames"] in words
    assert {"tokens", "embedding", "views"}.isdisjoint(line[0] for line in words)
    checked = i2st("verify", fresh)
    assert (checked.exit_code, "every checksum holds" in checked.stdout) == (0, True)
    run = tmp_path_factory.mktemp("run") / "run"
    refused = i2st("train", "--shards", fresh, "--run", run)
    assert refused.exit_code == 2
    assert "holds frames; features were needed; name shards of features" in refused.output
    assert not run.exists()
