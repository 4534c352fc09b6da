"""The script in docs/masks.md that writes SEEM's masks does what `precomputed` reads."""

import numpy as np
import pytest
from colour_scenes import COLOURS, cell_iou, scene
from make_videos import form, write_video
from typer.testing import CliRunner

import cli
from pipeline.clips import segment_centres
from pipeline.manifests import Video
from pipeline.manifests.scan import scan_clips
from pipeline.masks import unpack_masks
from pipeline.prompts import PromptSet
from pipeline.segmenters import ClipToSegment, get_segmenter

NUM_FRAMES = 21


def recipe_of(page):
    """The indented block of docs/masks.md that begins with the script's name."""
    lines = page.splitlines()
    first = lines.index("    # seem_masks.py")
    block = []
    for line in lines[first:]:
        if line and not line.startswith("    "):
            break
        block.append(line[4:])
    return "\n".join(block)


@pytest.fixture(scope="module")
def recipe(repository):
    return compile(recipe_of((repository / "docs/masks.md").read_text()), "seem_masks.py", "exec")


def picture(i):
    """The person (red) goes right, the ball (blue) down; from the middle on there is no ball."""
    ball = [("blue", 100, 30 + 4 * i, 16)] if i < NUM_FRAMES // 2 else []
    return scene(("red", 30 + 3 * i, 60, 20), *ball, height=120, width=160)


def test_seem_recipe_takes_the_frames_that_extract_stores(recipe):
    names = {"__name__": "recipe"}
    exec(recipe, names)
    for num_frames in (1, 2, 7, 8, 9, 40, 333):
        expected = sorted(set(segment_centres(num_frames, 8).tolist()))
        assert names["stored_frames"](num_frames) == expected


def test_seem_recipe_writes_masks_that_precomputed_reads(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {name: tmp_path / "data/hmdb51" / name for name in ("catch", "kick_ball")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        pictures = np.stack([picture(i)[0] for i in range(NUM_FRAMES)])
        write_video(folder / "clip.1_a.mp4", pictures, form("h264_mp4"))
    for command, file in (("prompts", "prompts.json"), ("manifest", "dataset.json")):
        done = CliRunner().invoke(cli.app, [command, "show", "hmdb51", "--json"])
        assert done.exit_code == 0
        (tmp_path / file).write_text(done.stdout)
    names = {"__name__": "recipe"}
    exec(recipe, names)
    asked = set()

    def seem(frame, text):
        asked.add(text)
        colour = np.array(COLOURS[{"person": "red", "ball": "blue"}[text]])
        return np.abs(frame.astype(int) - colour).max(axis=-1) < 110

    names["seem"] = seem
    names["main"]()
    assert asked == {"person", "ball"}
    # kick_ball is a test class, and masks are made for the train split alone.
    assert [path.name for path in (tmp_path / "seem_masks").iterdir()] == ["catch"]
    ((clip_name, _),) = scan_clips(tmp_path / "data/hmdb51", "catch")
    masks = precomputed_masks(tmp_path / "seem_masks", f"catch/{clip_name}")
    stored = segment_centres(NUM_FRAMES, 8)
    ball_shown = stored < NUM_FRAMES // 2
    np.testing.assert_array_equal(masks.found[:, :2].T, [[True] * 8, ball_shown])
    assert not masks.found[:, 2:].any()
    for index, cells in zip(stored, unpack_masks(masks.bits), strict=True):
        discs = picture(index)[1]
        for slot, disc in enumerate(discs):
            assert cell_iou(cells[slot], disc) > 0.8


def precomputed_masks(folder, video_id):
    clip = ClipToSegment(
        video=Video(video_id=video_id, path=video_id, class_name="catch", split="train"),
        frames=np.zeros((8, 120, 160, 3), np.uint8),
        frame_indices=segment_centres(NUM_FRAMES, 8),
        num_frames_decoded=NUM_FRAMES,
        prompts=PromptSet(key="catch", actor=("person",), objects=("ball",), source="table"),
    )
    return get_segmenter("precomputed", masks=folder).segment([clip])[0]
