"""decord as a decoder: the field's habit, kept for comparison and for caches made with it.

Measured wrong, without any error, on MPEG-4 with B-frames, HEVC, open groups of pictures and MPEG
streams; `python -m benchmarks.decoders` shows it. Where it is right it gives the frames of the
default decoder.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clips import FrameChooser
from pipeline.decoding.survey import survey_file
from pipeline.decoding.types import MAX_PIXELS, DecodedClip
from pipeline.errors import BackendError, VideoError


class DecordDecoder:
    """Decoder on decord, which sees only files that the default decoder's checks let through.

    Args:
        max_pixels: largest height x width of a frame.

    Raises:
        BackendError: decord is not installed.
    """

    name = "decord"

    def __init__(self, *, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._decord = _import_decord()

    def version(self) -> str:
        """Version of decord; its wheels carry one FFmpeg each."""
        return f"decord {self._decord.__version__}"

    def read(self, path: Path, choose: FrameChooser) -> DecodedClip:
        """Decode the frames that ``choose`` picks; see `pipeline.decoding.types.Decoder`.

        The frames expected are counted as for every decoder; decord tells of no damaged packet.
        """
        survey = survey_file(path, self._max_pixels)
        try:
            reader = self._decord.VideoReader(str(path.absolute()), num_threads=1)
            num_frames = len(reader)
            if num_frames < 1:
                raise VideoError("undecodable", f"{path} holds 0 frames for decord; 1 was needed")
            wanted = np.array(choose(num_frames), np.int32)
            # Each frame once and forwards: decord seeks for everything else.
            unique, places = np.unique(wanted, return_inverse=True)
            frames = reader.get_batch(unique.tolist()).asnumpy()
        except (RuntimeError, IndexError) as error:  # DECORDError is a RuntimeError
            text = str(error).strip().splitlines()[-1:] or [""]
            raise VideoError(
                "undecodable", f"{path} does not decode with decord ({text[0][:200]})"
            ) from error
        return DecodedClip(
            frames=frames[places],
            frame_indices=wanted,
            num_frames_decoded=num_frames,
            num_frames_expected=survey.num_expected(num_frames),
            num_damaged_packets=0,
        )


def _import_decord() -> Any:
    try:
        import decord
    except (ImportError, OSError) as error:  # OSError: a library it links is absent
        raise BackendError(
            f"decoder 'decord' cannot be imported ({error}); the package decord was needed; "
            "install decord, or pass `--decoder pyav` and no `--check-decoder`"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord
