"""Exact decoding of a few frames of a video, behind one Protocol, in children that can be killed.

Nothing here imports torch, and PyAV and decord are imported only when a decoder is built.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from pipeline.clips import FrameChooser, frame_chooser
from pipeline.decoding.types import MAX_PIXELS, DecodedClip, Decoder
from pipeline.errors import I2STError, VideoError
from pipeline.registry import find_builder, known_names

__all__ = [
    "DECODERS",
    "DEFAULT_DECODER",
    "MAX_PIXELS",
    "DecodedClip",
    "Decoder",
    "FrameChooser",
    "decoder_names",
    "get_decoder",
    "read_clip",
]

DEFAULT_DECODER = "pyav"
"""Our choice: exact on every codec and container measured, where decord is not."""

_GROUP = "i2st.decoders"


def _pyav(*, max_pixels: int) -> Decoder:
    from pipeline.decoding.pyav_reader import PyAVDecoder

    return PyAVDecoder(max_pixels=max_pixels)


def _decord(*, max_pixels: int) -> Decoder:
    from pipeline.decoding.decord_reader import DecordDecoder

    return DecordDecoder(max_pixels=max_pixels)


DECODERS: Mapping[str, Callable[..., Decoder]] = {"pyav": _pyav, "decord": _decord}


def decoder_names() -> list[str]:
    """Names that `get_decoder` takes."""
    return known_names(DECODERS, _GROUP)


def get_decoder(name: str = DEFAULT_DECODER, *, max_pixels: int = MAX_PIXELS) -> Decoder:
    """Build the decoder called ``name``.

    Args:
        name: ``pyav``, ``decord``, or an entry point of the group ``i2st.decoders``.
        max_pixels: largest height x width of a frame; a larger one is refused before it is decoded.

    Returns:
        The decoder, ready to read.

    Raises:
        BackendError: no decoder has that name, or its package is not installed.
    """
    build = find_builder(name, builtin=DECODERS, group=_GROUP, kind="decoder")
    return cast(Decoder, build(max_pixels=max_pixels))


def read_clip(
    path: Path,
    decoder_name: str = DEFAULT_DECODER,
    rule: str = "segment_centres",
    count: int = 8,
    *,
    min_decoded_ratio: float = 0.95,
    max_pixels: int = MAX_PIXELS,
) -> DecodedClip:
    """Decode the frames of one video that a rule picks, in this process.

    Args:
        path: a video file, or a folder of JPEG/PNG frames in natural order of their names.
        decoder_name: see `get_decoder`; a folder is read the same way whichever it is.
        rule: a key of `pipeline.clips.FRAME_RULES`.
        count: F, frames to return.
        min_decoded_ratio: the video is refused where fewer of its expected frames decode.
        max_pixels: largest height x width of a frame.

    Returns:
        The frames and what the decoder noticed; ``count`` frames, repeated where there are fewer.

    Raises:
        VideoError: the video cannot be used; its reason is missing, undecodable, short, too_large
            or oom.
        BackendError: the decoder is unknown or not installed.
        ConfigError: the rule is unknown.
    """
    choose = frame_chooser(rule, count)
    decoder = get_decoder(decoder_name, max_pixels=max_pixels)
    return read_with(decoder, path, choose, min_decoded_ratio, max_pixels)


def read_with(
    decoder: Decoder,
    path: Path,
    choose: FrameChooser,
    min_decoded_ratio: float,
    max_pixels: int,
) -> DecodedClip:
    """Do the work of `read_clip` with a decoder that is already built."""
    from pipeline.decoding.image_folder import read_image_folder

    if not os.path.exists(path):  # unlike Path.exists, also for names that no system allows
        raise VideoError("missing", f"{path} is absent; check the videos' folder")
    try:
        if path.is_dir():
            clip = read_image_folder(path, choose, max_pixels=max_pixels)
        else:
            clip = decoder.read(path, choose)
    except I2STError:
        raise
    except MemoryError as error:
        raise VideoError("oom", f"{path} needs more memory than there is ({error})") from error
    except Exception as error:
        # A hostile or broken file may bring any exception out of a decoder; it costs one video.
        text = f"{path} does not decode ({type(error).__name__}: {error})"
        raise VideoError("undecodable", " ".join(text.split())) from error
    if clip.num_frames_decoded < min_decoded_ratio * clip.num_frames_expected:
        raise VideoError(
            "short",
            f"{path} decodes {clip.num_frames_decoded} of {clip.num_frames_expected} frames; "
            f"at least {min_decoded_ratio:g} of them were needed; "
            "replace the file or lower `--min-decoded-ratio`",
        )
    return clip
