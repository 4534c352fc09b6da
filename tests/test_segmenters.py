import csv
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BackendError, VideoError
from pipeline.manifests import Video
from pipeline.masks import pack_masks, unpack_masks
from pipeline.prompts import PromptSet
from pipeline.segmenters import ClipToSegment, get_segmenter, segmenter_names

PROMPTS = PromptSet(key="wave", actor=("person",), objects=("hand",), source="table")


def clip_of(video_id, frame_indices, num_frames_decoded, height=24, width=32):
    return ClipToSegment(
        video=Video(video_id=video_id, path=video_id, class_name="wave", split="train"),
        frames=np.zeros((len(frame_indices), height, width, 3), np.uint8),
        frame_indices=np.asarray(frame_indices, np.int32),
        num_frames_decoded=num_frames_decoded,
        prompts=PROMPTS,
    )


def moving_squares(num_frames=5, side=64):
    """A square that moves right, one pixel column of 128 cells' worth per frame and slot."""
    masks = np.zeros((num_frames, side, side), bool)
    for i in range(num_frames):
        masks[i, 10:30, 4 * i : 4 * i + 20] = True
    return masks


def enlarged(masks):
    return masks.repeat(2, axis=-1).repeat(2, axis=-2)


def write_npz(path, masks, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    bits = np.packbits(masks.reshape(*masks.shape[:-2], -1), axis=-1)
    np.savez(path, bits=bits, height=masks.shape[-2], width=masks.shape[-1], **more)


def segment_one(folder, clip):
    return get_segmenter("precomputed", masks=folder).segment([clip])[0]


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def test_precomputed_npz_gives_the_masks_of_the_frames_asked_for(tmp_path):
    masks = moving_squares()
    write_npz(tmp_path / "wave" / "a.npz", masks)
    result = segment_one(tmp_path, clip_of("wave/a", [4, 0, 4, 2], 5))
    cells = unpack_masks(result.bits)
    np.testing.assert_array_equal(cells[:, 0], enlarged(masks[[4, 0, 4, 2]]))
    assert not cells[:, 1:].any()
    np.testing.assert_array_equal(result.found, [[True, False, False, False]] * 4)
    np.testing.assert_array_equal(result.score, result.found.astype(np.float16))


def test_precomputed_npz_takes_slots_found_and_scores(tmp_path):
    masks = np.stack([moving_squares(), moving_squares()[:, ::-1]], axis=1)
    found = np.ones((5, 2), bool)
    found[1, 1] = False
    score = np.linspace(0.5, 1, 10).reshape(5, 2).astype(np.float32)
    write_npz(tmp_path / "v.npz", masks, found=found, score=score)
    result = segment_one(tmp_path, clip_of("v", [0, 1], 5))
    np.testing.assert_array_equal(result.found, [[1, 1, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(result.score[:, :2], [score[0], [score[1, 0], 0]], atol=1e-3)
    np.testing.assert_array_equal(unpack_masks(result.bits)[0, 1], enlarged(masks[0, 1]))
    assert not result.bits[1, 1].any()


def test_precomputed_npz_with_frames_leaves_the_other_frames_unfound(tmp_path):
    masks = moving_squares(2)
    write_npz(tmp_path / "v.npz", masks, frames=np.array([3, 9]))
    result = segment_one(tmp_path, clip_of("v", [0, 3, 9, 11], 12))
    np.testing.assert_array_equal(result.found[:, 0], [False, True, True, False])
    np.testing.assert_array_equal(unpack_masks(result.bits)[2, 0], enlarged(masks[1]))


def test_precomputed_counts_an_empty_mask_as_not_found(tmp_path):
    masks = moving_squares(3)
    masks[1] = False
    write_npz(tmp_path / "v.npz", masks)
    result = segment_one(tmp_path, clip_of("v", [0, 1, 2], 3))
    np.testing.assert_array_equal(result.found[:, 0], [True, False, True])
    np.testing.assert_array_equal(result.score[:, 0], [1, 0, 1])


def test_precomputed_finds_nothing_in_a_video_without_a_file(tmp_path):
    write_npz(tmp_path / "other.npz", moving_squares())
    result = segment_one(tmp_path, clip_of("wave/a", [0, 1], 5))
    assert result.bits.shape == (2, 4, 2048)
    assert not result.bits.any()
    assert not result.found.any()
    assert not result.score.any()


def test_precomputed_json_decodes_run_lengths_with_slots_and_unions(tmp_path):
    left, right = (np.zeros((4, 8), bool) for _ in range(2))
    left[:, :3] = True
    right[:, 6:] = True
    content = {
        "num_frames": 6,
        "masks": [
            {"frame": 2, "rle": {"size": [4, 8], "counts": [0, 12, 20]}},
            {"frame": 2, "rle": {"size": [4, 8], "counts": [24, 8]}, "score": 0.5},
            {"frame": 4, "slot": "object1", "rle": {"size": [4, 8], "counts": [24, 8]}},
            {"frame": 5, "rle": {"size": [4, 8], "counts": [24, 8]}},
        ],
    }
    (tmp_path / "v.json").write_text(json.dumps(content))
    result = segment_one(tmp_path, clip_of("v", [2, 4], 6))
    cells = unpack_masks(result.bits)
    np.testing.assert_array_equal(result.found, [[1, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(cells[0, 0], (left | right).repeat(32, 0).repeat(16, 1))
    np.testing.assert_array_equal(cells[1, 1], right.repeat(32, 0).repeat(16, 1))
    np.testing.assert_array_equal(result.score[:, :2], [[0.5, 0], [0, 1]])


def test_precomputed_json_takes_a_plain_list_per_frame(tmp_path):
    # The compressed string is pycocotools 2.0.11's of rows 1..3, columns 2..4 set in 5 x 6.
    rle = {"size": [5, 6], "counts": ";320004"}
    (tmp_path / "v.json").write_text(json.dumps([None, rle, None]))
    result = segment_one(tmp_path, clip_of("v", [0, 1], 3))
    np.testing.assert_array_equal(result.found[:, 0], [False, True])
    rows, columns = np.nonzero(unpack_masks(result.bits)[1, 0])
    # Rows 1..3 of 5 are cells 25.6 to 102.4 of 128, columns 2..4 of 6 are 42.7 to 106.7.
    assert (rows.min(), rows.max()) == (26, 101)
    assert (columns.min(), columns.max()) == (43, 106)


def test_precomputed_pictures_are_named_by_their_frame_and_coloured_by_slot(tmp_path):
    folder = tmp_path / "wave" / "a"
    folder.mkdir(parents=True)
    labels = np.zeros((32, 64), np.uint8)
    labels[:8, :16] = 255
    labels[8:16, :16] = 1
    labels[:, 32:] = 3
    Image.fromarray(labels).save(folder / "00007.png")
    result = segment_one(tmp_path, clip_of("wave/a", [6, 7], 9))
    np.testing.assert_array_equal(result.found, [[0, 0, 0, 0], [1, 0, 1, 0]])
    actor, object2 = unpack_masks(result.bits)[1, [0, 2]]
    expected = np.zeros((128, 128), bool)
    expected[:64, :32] = True
    np.testing.assert_array_equal(actor, expected)
    np.testing.assert_array_equal(object2, np.arange(128)[None].repeat(128, 0) >= 64)


def test_precomputed_takes_pictures_of_one_bit(tmp_path):
    (tmp_path / "v").mkdir()
    Image.fromarray(moving_squares()[0]).save(tmp_path / "v" / "0.png")
    result = segment_one(tmp_path, clip_of("v", [0], 1))
    np.testing.assert_array_equal(unpack_masks(result.bits)[0, 0], enlarged(moving_squares()[0]))


def npy_bytes(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def write_npz_of(folder, member, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "v.npz", "w", compression) as archive:
        archive.writestr("bits.npy", member)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: write_npz(f / "v.npz", moving_squares(4)), "of 4 frames; needed 5"),
        (
            lambda f: write_npz(f / "v.npz", moving_squares(2), frames=np.array([1, 5])),
            "from 1 to 5; needed 0 to 4",
        ),
        (
            lambda f: np.savez(f / "v.npz", bits=np.zeros((5, 3), np.uint8), height=8, width=8),
            r"bits are \(5, 3\); needed uint8 \(frames, 8\)",
        ),
        (
            lambda f: np.savez(f / "v.npz", bits=np.zeros((5, 8), np.uint8), height=8),
            "width is None",
        ),
        (
            lambda f: write_npz(f / "v.npz", moving_squares(), score=np.full(5, 2.0)),
            r"score leaves \[0, 1\]",
        ),
        (
            lambda f: np.savez(f / "v.npz", bits=np.array([{}], object), height=8, width=8),
            "declares object",
        ),
        (
            lambda f: np.savez(
                f / "v.npz", bits=np.zeros((5, 8), np.uint8), height=10**6, width=10**6
            ),
            "1000000 x 1000000",
        ),
        (lambda f: (f / "v.npz").write_bytes(b"not a zip file"), "not an npz file"),
        (lambda f: write_npz_of(f, npy_bytes("{'shape': (")), "not an npz file .*multi-line"),
        (
            lambda f: write_npz_of(f, npy_bytes("{}"), compression=zipfile.ZIP_BZIP2),
            "bits.npy is compressed by method 12; needed: none or deflate",
        ),
        (lambda f: (f / "v.json").write_text("[null, null]"), "of 2 frames; needed 5"),
        (lambda f: (f / "v.json").write_text("{]"), "Expecting"),
        (lambda f: (f / "v.json").write_text('{"num_frames": 5}'), "KeyError: 'masks'"),
        (lambda f: (f / "v.json").write_text("[1, 1, 1, 1, 1]"), "unexpected JSON"),
        (
            lambda f: (f / "v.json").write_text('{"num_frames": Infinity, "masks": []}'),
            "OverflowError: cannot convert float infinity",
        ),
    ],
)
def test_precomputed_refuses_a_file_that_does_not_fit_the_video(tmp_path, write, message):
    write(tmp_path)
    with pytest.raises(VideoError, match=message) as caught:
        segment_one(tmp_path, clip_of("v", [0, 4], 5))
    assert caught.value.reason == "masks"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("5.png", np.zeros((4, 4), np.uint8), "is frame 5 counted from 0; needed below 5"),
        ("a.png", np.zeros((4, 4), np.uint8), "picture a.png; needed the frame's number"),
        ("0.png", np.full((4, 4), 9, np.uint8), "has value 9; needed 0 to 4 or 255"),
        ("0.png", np.zeros((4, 4, 3), np.uint8), "has mode RGB; needed one 8-bit channel"),
    ],
)
def test_precomputed_refuses_pictures_that_do_not_fit(tmp_path, name, picture, message):
    (tmp_path / "v").mkdir()
    Image.fromarray(picture).save(tmp_path / "v" / name)
    with pytest.raises(VideoError, match=message):
        segment_one(tmp_path, clip_of("v", [0, 4], 5))


def test_precomputed_refuses_an_array_that_declares_more_than_its_file_holds(tmp_path):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 20000000000), }"
    bomb = npy_bytes(header.ljust(117) + "\n")
    write_npz_of(tmp_path, bomb)
    with pytest.raises(VideoError, match=r"declares uint8 \(5, 20000000000\)"):
        segment_one(tmp_path, clip_of("v", [0], 5))


def test_precomputed_refuses_a_video_id_that_leaves_the_folder(tmp_path):
    (tmp_path / "masks").mkdir()
    write_npz(tmp_path / "masks" / "v.npz", moving_squares())
    write_npz(tmp_path / "secret.npz", moving_squares())
    with pytest.raises(VideoError, match="needed a path below it"):
        segment_one(tmp_path / "masks", clip_of("../secret", [0], 5))


def test_precomputed_says_what_to_give_without_a_folder(tmp_path):
    with pytest.raises(BackendError, match=r"got no folder; .* give `--mask-files DIR`"):
        get_segmenter("precomputed")
    with pytest.raises(BackendError, match=r"absent is absent; .* `--segmenter none`"):
        get_segmenter("precomputed", masks=tmp_path / "absent")
    with pytest.raises(BackendError, match=r"holds no \.npz, \.json, \.png"):
        get_segmenter("precomputed", masks=tmp_path)


def test_precomputed_fingerprint_follows_folders_behind_links(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "masks"
    elsewhere.mkdir()
    folder.mkdir()
    (folder / "run").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "clip.json").write_text("1")
    before = get_segmenter("precomputed", masks=folder).fingerprint()
    (elsewhere / "clip.json").write_text("2")
    assert get_segmenter("precomputed", masks=folder).fingerprint() != before


def test_precomputed_fingerprint_follows_names_and_content(tmp_path):
    def written(folder, name, masks):
        write_npz(tmp_path / folder / name, masks)
        return get_segmenter("precomputed", masks=tmp_path / folder).fingerprint()

    same = written("a", "v.npz", moving_squares())
    assert same["name"] == "precomputed"
    assert written("b", "v.npz", moving_squares()) == same
    assert written("c", "w.npz", moving_squares()) != same
    assert written("d", "v.npz", moving_squares()[::-1]) != same


def test_precomputed_does_not_depend_on_the_other_clips_of_the_call(tmp_path):
    for name in "ab":
        write_npz(tmp_path / f"{name}.npz", np.roll(moving_squares(), ord(name), axis=2))
    clips = [clip_of("a", [0, 1], 5), clip_of("absent", [0], 1), clip_of("b", [3], 5)]
    segmenter = get_segmenter("precomputed", masks=tmp_path)
    together, alone = segmenter.segment(clips), [segmenter.segment([clip])[0] for clip in clips]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.bits, second.bits)
        np.testing.assert_array_equal(first.found, second.found)


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["masks", "masks_deeplab"])
def test_precomputed_reduces_real_masks_to_the_same_regions(real_data, folder):
    root = real_data / "jhmdb21"
    with (root / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"][::36]
    segmenter = get_segmenter("precomputed", masks=root / folder)
    overlaps = []
    for row in rows:
        video_id, num_frames = f"{row['class']}/{row['clip']}", int(row["mask_frames"])
        indices = np.linspace(0, num_frames - 1, 4).astype(np.int32)
        result = segmenter.segment([clip_of(video_id, indices, num_frames)])[0]
        with np.load(root / folder / f"{video_id}.npz") as arrays:
            height, width = int(arrays["height"]), int(arrays["width"])
            full = np.unpackbits(arrays["bits"], axis=1, count=height * width)
        full = full.reshape(-1, height, width)[indices].astype(bool)
        # Enlarged back by repeating cells: the nearest cell of each pixel's centre.
        y = ((np.arange(height) + 0.5) * 128 / height).astype(int)
        x = ((np.arange(width) + 0.5) * 128 / width).astype(int)
        cells = unpack_masks(result.bits)[:, 0][:, y][:, :, x]
        np.testing.assert_array_equal(result.found[:, 0], full.any(axis=(1, 2)))
        overlaps += [iou(a, b) for a, b in zip(cells, full, strict=True) if b.sum() > 500]
    assert len(overlaps) > 20
    assert min(overlaps) > 0.85
    assert np.mean(overlaps) > 0.94


def test_center_prior_is_the_ellipse_of_its_documented_axes():
    segmenter = get_segmenter("center_prior")
    result = segmenter.segment([clip_of("a", [0, 1, 2], 3)])[0]
    np.testing.assert_array_equal(result.found, [[True, False, False, False]] * 3)
    mask = unpack_masks(result.bits)[0, 0]
    assert mask.mean() == pytest.approx(np.pi * 0.20 * 0.35, abs=0.005)
    rows, columns = np.nonzero(mask)
    assert (rows.min() + rows.max()) / 2 == (columns.min() + columns.max()) / 2 == 63.5
    assert (columns.max() + 1 - columns.min()) / 128 == pytest.approx(2 * 0.20, abs=2 / 128)
    assert (rows.max() + 1 - rows.min()) / 128 == pytest.approx(2 * 0.35, abs=2 / 128)
    np.testing.assert_array_equal(result.bits[0], result.bits[2])
    assert segmenter.fingerprint() == {
        "name": "center_prior",
        "semi_axis_x": 0.20,
        "semi_axis_y": 0.35,
    }


def test_segmenter_none_is_no_segmenter():
    assert get_segmenter("none") is None


def test_unknown_segmenter_is_refused_with_the_known_names():
    built_in = {"center_prior", "grounding_dino_sam", "none", "precomputed", "sam3", "sam_clip"}
    assert built_in <= set(segmenter_names())
    with pytest.raises(BackendError, match=r"unknown segmenter 'sem'; known: center_prior, ground"):
        get_segmenter("sem")


def test_controls_import_no_model_library(tmp_path):
    write_npz(tmp_path / "v.npz", moving_squares())
    script = (
        "import sys; from pathlib import Path; from pipeline.segmenters import get_segmenter\n"
        "get_segmenter('center_prior'), get_segmenter('none')\n"
        f"get_segmenter('precomputed', masks=Path({str(tmp_path)!r}))\n"
        "print(sorted({'torch', 'open_clip', 'segment_anything'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_packed_masks_of_the_demo_form_come_back_unchanged(tmp_path):
    masks = np.random.default_rng(0).random((3, 4, 128, 128)) < 0.5
    write_npz(tmp_path / "v.npz", masks)
    result = segment_one(tmp_path, clip_of("v", [0, 1, 2], 3))
    np.testing.assert_array_equal(result.bits, pack_masks(masks))
