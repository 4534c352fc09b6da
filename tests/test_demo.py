import csv
import hashlib
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from pipeline.demo import make_demo
from pipeline.demo.actions import ACTIONS, Action
from pipeline.demo.dataset import NUM_FRAMES
from pipeline.demo.painting import Part, paint_part
from pipeline.demo.scenes import HEIGHT, WIDTH, film, make_look, make_scene
from pipeline.demo.shapes import box, disk, flower, jaw, ring, star
from pipeline.encoders import get_encoder
from pipeline.encoders.encoding import encode_all
from pipeline.errors import ConfigError
from pipeline.manifests import find_videos, load_manifest
from pipeline.views import square_view


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def content(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    return root, make_demo(root, seed=3, videos_per_class=2)


def plain(shape, **values):
    colours = {"paint": (1.0, 1.0, 1.0), "second_paint": (1.0, 1.0, 1.0)}
    return Part(shape=shape, **{"x": 0.5, "y": 0.5, "size": 0.3, **colours, **values})


def test_demo_has_one_readable_video_and_mask_per_row_of_its_table(demo):
    root, paths = demo
    with paths.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(ACTIONS)
    for row in rows:
        frames = decode(root / row["path"])
        assert frames.shape == (NUM_FRAMES, HEIGHT, WIDTH, 3)
        assert row["path"] == f"videos/{row['id']}.mp4"
        with np.load(paths.masks / f"{row['id']}.npz") as masks:
            assert (int(masks["height"]), int(masks["width"])) == (HEIGHT, WIDTH)
            assert masks["bits"].shape == (NUM_FRAMES, HEIGHT * WIDTH // 8)
            assert masks["bits"].dtype == np.uint8
            assert masks["bits"].any(), row


def test_demo_is_what_its_manifest_says(demo):
    root, paths = demo
    manifest = load_manifest("demo")
    with paths.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "val", "test"):
        of_split = {row["class"] for row in rows if row["split"] == split}
        assert set(manifest.classes[split]) == of_split
    found = {(video.class_name, video.group) for video in find_videos(manifest, paths.videos)}
    assert found == {(row["class"], row["group"]) for row in rows}
    assert sum(map(len, manifest.classes.values())) >= 15


def test_demo_of_the_same_seed_has_the_same_bytes(demo, tmp_path):
    root, _ = demo
    told = []
    make_demo(
        tmp_path,
        seed=3,
        videos_per_class=2,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert content(tmp_path) == content(root)
    assert told == [(done, 44) for done in range(1, 45)]


def test_demo_of_another_seed_has_other_videos_and_may_not_overwrite(demo, tmp_path):
    root, _ = demo
    make_demo(tmp_path, seed=4, videos_per_class=1)
    before, other = content(root), content(tmp_path)
    assert not set(before.values()) & {other[name] for name in other if name.endswith(".mp4")}
    with pytest.raises(ConfigError, match="holds other videos than this demo's"):
        make_demo(root, seed=4, videos_per_class=2)
    assert content(root) == before


def test_demo_refuses_a_folder_of_videos_that_it_did_not_make(tmp_path):
    (tmp_path / "videos" / "mine").mkdir(parents=True)
    with pytest.raises(ConfigError, match="give another folder"):
        make_demo(tmp_path)
    assert not (tmp_path / "README.txt").exists()


def test_demo_names_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*file \(File exists\).*another --out"):
        make_demo(tmp_path / "file")


def test_demo_says_that_it_is_synthetic(demo):
    root, _ = demo
    text = (root / "README.txt").read_text()
    assert "Synthetic videos" in text
    assert "says nothing about real videos" in text


@pytest.mark.parametrize("pair", list(zip(ACTIONS[::2], ACTIONS[1::2], strict=True)))
def test_twins_show_the_same_frames_in_opposite_order(pair):
    forwards, backwards = pair
    assert forwards.split == backwards.split
    look = make_look(np.random.default_rng(1))

    def painted(action, phase):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for part in action.parts(phase, look):
            paint_part(picture, part)
        return picture

    for phase in (0.0, 0.25, 0.5):
        np.testing.assert_array_equal(painted(forwards, phase), painted(backwards, 1 - phase))
    assert np.abs(painted(forwards, 0.0) - painted(forwards, 1.0)).max() > 0.1


def test_masks_are_the_pixels_that_the_action_paints():
    """The same film without the action differs exactly on the masks, up to half-covered borders."""
    look, scene = make_look(np.random.default_rng(2)), make_scene(np.random.default_rng(5))
    empty = Action("nothing", "train", lambda phase, look: [], backwards=False)
    star_action = next(action for action in ACTIONS if action.name == "grow_star")
    settings = {"num_frames": 6}
    with_star = film(star_action, look, scene, random=np.random.default_rng(7), **settings)
    without = film(empty, look, scene, random=np.random.default_rng(7), **settings)
    assert not without.masks.any()
    changed = (with_star.frames != without.frames).any(axis=-1)
    assert not (with_star.masks & ~changed).mean() > 1e-3
    grown = np.zeros_like(with_star.masks)
    for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)):
        grown |= np.roll(with_star.masks, shift, axis=(1, 2))
    assert not (changed & ~grown).any()
    areas = with_star.masks.sum(axis=(1, 2))
    assert list(areas) == sorted(areas)
    assert areas[-1] > 5 * areas[0]


def test_scene_depends_on_the_group_and_not_on_the_class(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.demo.dataset.ACTIONS", ACTIONS[::4])
    # Three clips per class: two in scene00, the third in scene01.
    paths = make_demo(tmp_path, seed=3, videos_per_class=3)
    colours = {
        scene: np.array(
            [
                np.median(decode(paths.videos / action.name / f"{scene}_take0.mp4"), axis=(0, 1, 2))
                for action in ACTIONS[::4]
            ]
        )
        for scene in ("scene00", "scene01")
    }
    spread = max(np.ptp(values, axis=0).max() for values in colours.values())
    between = np.abs(colours["scene00"].mean(axis=0) - colours["scene01"].mean(axis=0)).max()
    assert between > 2 * spread


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (disk, np.pi),
        (ring, np.pi * (1 - 0.55**2)),
        (box(0.8, 0.5), 1.6),
        (jaw(0.5), np.pi - 0.5),
        (flower(5, 0.0), np.pi),
        # Integral of (1 - 2 depth |turn|)^2 over the angle.
        (star(5, 0.5), np.pi * (1 - 0.5 + 0.25 / 3)),
    ],
)
def test_painted_area_is_that_of_the_shape(shape, area):
    picture = np.zeros((200, 200, 3), np.float32)
    covered = paint_part(picture, plain(shape, angle=0.3))
    assert covered.sum() == pytest.approx(area * (0.3 * 200) ** 2, rel=0.02)


def test_painting_is_antialiased_and_clipped_at_the_border():
    # A box whose right edge lies in the middle of pixel column 7 of 10.
    picture = np.zeros((10, 10, 3), np.float32)
    part = plain(box(1.0, 9.0), x=0.45, size=0.3)
    covered = paint_part(picture, part)
    outline = paint_part(np.zeros((10, 10, 3), np.float32), replace(part, opacity=0.1))
    assert 0 < picture[5, 7, 0] < picture[5, 5, 0]
    assert picture[5, 8, 0] == 0
    assert covered[5].tolist() == [False, *[True] * 7, False, False]
    assert not outline.any()
    assert not paint_part(picture, plain(disk, x=-3.0)).any()


def test_order_of_frames_tells_the_test_classes_apart_and_their_mean_does_not(demo):
    """Leave-one-out over the unseen classes, with the frozen encoder of the demo."""
    _, paths = demo
    encoder = get_encoder("efficientnet-lite0")
    names = [action.name for action in ACTIONS if action.split == "test"]
    clips, labels = [], []
    for number, name in enumerate(names):
        for path in sorted((paths.videos / name).glob("*.mp4")):
            views = square_view(decode(path)[1::6], image_size=224)  # 4 frames
            clips.append(encode_all(encoder, views, batch_size=4).embedding.float())
            labels.append(number)
    frames = torch.stack(clips)
    frames = frames - frames.mean(dim=(0, 1))
    truth = torch.tensor(labels)

    def accuracy(features):
        features = features / features.norm(dim=-1, keepdim=True)
        similarity = torch.einsum("atc,btc->ab", features, features).fill_diagonal_(-torch.inf)
        return (truth[similarity.argmax(dim=1)] == truth).float().mean().item()

    pairs = truth // 2
    pooled = frames.mean(dim=1, keepdim=True)
    assert accuracy(frames) >= accuracy(pooled) + 0.25
    normal = pooled[:, 0] / pooled[:, 0].norm(dim=-1, keepdim=True)
    nearest = (normal @ normal.T).fill_diagonal_(-torch.inf).argmax(dim=1)
    assert (pairs[nearest] == pairs).float().mean() >= 0.75  # the object is known, the order is not
