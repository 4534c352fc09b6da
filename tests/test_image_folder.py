import struct
import zlib

import av
import numpy as np
import pytest
from make_videos import scene
from PIL import Image

from pipeline.decoding import get_decoder, read_clip
from pipeline.decoding.image_folder import image_paths, read_image
from pipeline.errors import VideoError


def save_frames(folder, pictures, suffix=".png", **options):
    folder.mkdir()
    for number, picture in enumerate(pictures, start=1):
        Image.fromarray(picture).save(folder / f"frame{number}{suffix}", **options)
    return folder


def test_frames_are_sorted_by_their_numbers(tmp_path):
    for name in ("f10.png", "f2.png", "f1.PNG", "f02b.jpeg", "g1.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in image_paths(tmp_path)]
    assert names == ["f1.PNG", "f2.png", "f02b.jpeg", "f10.png", "g1.jpg"]


def test_png_frames_are_read_exactly_and_in_order(tmp_path):
    pictures = scene(12, 30, 41)
    clip = read_clip(save_frames(tmp_path / "clip", pictures), count=12)
    np.testing.assert_array_equal(clip.frames, pictures)
    assert clip.frame_indices.tolist() == list(range(12))
    assert (clip.num_frames_decoded, clip.num_frames_expected) == (12, 12)
    assert clip.num_damaged_packets == 0


@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_frames_agree_with_another_reader(tmp_path, subsampling):
    folder = save_frames(
        tmp_path / "clip", scene(3, 40, 56), ".jpg", quality=95, subsampling=subsampling
    )
    clip = read_clip(folder, count=3)
    others = [np.asarray(Image.open(path).convert("RGB")) for path in image_paths(folder)]
    # Both follow the JPEG standard up to its rounding; how colour at half size is spread over
    # pixels is each reader's choice, which shows at the hard edges of the numbers.
    limit = 1.0 if subsampling == 0 else 4.0
    assert np.abs(clip.frames.astype(np.int16) - np.stack(others)).mean() < limit


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_other_kinds_of_png_become_rgb(tmp_path, mode):
    grey = scene(1, 20, 24)[0][:, :, 0]
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "frame.png")
    rgb = read_image(tmp_path / "frame.png")
    assert np.abs(rgb.astype(int) - grey[:, :, None]).max() <= 1


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, -1), (3, 2), (8, 1)])
def test_jpeg_is_turned_as_its_exif_data_asks(tmp_path, orientation, turns):
    picture = scene(1, 32, 48)[0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "x.jpg", quality=95, subsampling=0, exif=exif)
    rgb = read_image(tmp_path / "x.jpg")
    assert np.abs(rgb.astype(int) - np.rot90(picture, turns)).mean() < 3


def test_a_folder_reads_the_same_whichever_decoder_is_chosen(tmp_path):
    pytest.importorskip("decord")
    folder = save_frames(tmp_path / "clip", scene(5, 16, 16))
    one, other = (read_clip(folder, name) for name in ("pyav", "decord"))
    np.testing.assert_array_equal(one.frames, other.frames)
    assert get_decoder("decord").name == "decord"


def test_damaged_images_are_set_aside_and_counted(tmp_path):
    pictures = scene(10, 24, 24)
    folder = save_frames(tmp_path / "clip", pictures)
    (folder / "frame4.png").write_bytes(b"no image")
    data = (folder / "frame7.png").read_bytes()
    (folder / "frame7.png").write_bytes(data[: len(data) // 2])
    clip = read_clip(folder, count=8, min_decoded_ratio=0.5)
    whole = np.delete(pictures, [3, 6], axis=0)
    np.testing.assert_array_equal(clip.frames, whole)
    assert (clip.num_frames_decoded, clip.num_frames_expected) == (8, 10)
    assert clip.num_damaged_packets == 2
    with pytest.raises(VideoError, match="decodes 8 of 10 frames") as caught:
        read_clip(folder, count=8)
    assert caught.value.reason == "short"


def test_frames_are_scaled_to_the_first_when_sizes_differ(tmp_path):
    folder = save_frames(tmp_path / "clip", scene(2, 32, 40))
    Image.fromarray(scene(2, 64, 80)[1]).save(folder / "frame2.png")
    assert read_clip(folder, count=2).frames.shape == (2, 32, 40, 3)


def test_a_folder_without_images_is_undecodable(tmp_path):
    with pytest.raises(VideoError, match="holds 0 images and 0 decode") as caught:
        read_clip(tmp_path)
    assert caught.value.reason == "undecodable"


def test_an_image_beyond_the_pixel_budget_is_refused_by_the_mere_claim(tmp_path):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))
    (tmp_path / "bomb.png").write_bytes(data + chunk(b"IEND", b""))
    with pytest.raises(VideoError, match="30000x30000 = 900000000 pixels; at most 67108864") as e:
        read_clip(tmp_path)
    assert e.value.reason == "too_large"


def test_a_jpeg_beyond_the_pixel_budget_is_refused_by_its_header(tmp_path):
    Image.fromarray(scene(1, 40, 50)[0]).save(tmp_path / "x.jpg")
    with pytest.raises(VideoError, match="50x40 = 2000 pixels; at most 1999"):
        read_clip(tmp_path, max_pixels=1999)
    assert read_clip(tmp_path, max_pixels=2000).frames.shape == (8, 40, 50, 3)


def test_a_renamed_video_is_no_image(tmp_path):
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(scene(1, 48, 64)[0], format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "x.avi").rename(tmp_path / "x.jpg")
    with pytest.raises(VideoError, match="holds 1 images and 0 decode"):
        read_clip(tmp_path)
