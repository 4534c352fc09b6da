"""The parent's side of decoding: children that can be killed, answers in the order asked for.

A decoder can hang while it holds the interpreter's lock, or crash, on a file of a published
dataset. No thread and no signal helps then, so every video is decoded in a process that can be
spared.
"""

import queue
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from pipeline.clips import BASE_PHASE, frame_chooser
from pipeline.decoding import DEFAULT_DECODER, get_decoder, read_with
from pipeline.decoding.child import ChildSettings
from pipeline.decoding.process import ChildProcess
from pipeline.decoding.types import MAX_PIXELS, DecodedClip
from pipeline.errors import VideoError

_PREFETCH = 2  # answers per child that may wait for the caller


class DecodeChildren:
    """Context manager around a number of decoding processes.

    What comes out does not depend on ``num_children``, except that with 0, which decodes in this
    process, a decoder that hangs hangs and one that crashes takes this process with it. Children
    start with their first video.

    Args:
        num_children: decoding processes; 0 decodes in this one.
        decoder: see `pipeline.decoding.get_decoder`.
        frame_rule: a key of `pipeline.clips.FRAME_RULES`.
        num_frames: F, frames per video.
        timeout_seconds: a child that takes longer over one video is killed.
        min_decoded_ratio: a video is refused where fewer of its expected frames decode.
        max_pixels: largest height x width of a frame.
        phases: P shifts of the frames; a clip then holds P x F frames, which
            `pipeline.decoding.DecodedClip.split` divides.

    Raises:
        BackendError: the decoder is unknown or not installed.
        ConfigError: the frame rule is unknown.
    """

    def __init__(
        self,
        num_children: int = 1,
        decoder: str = DEFAULT_DECODER,
        frame_rule: str = "segment_centres",
        num_frames: int = 8,
        timeout_seconds: float = 60.0,
        min_decoded_ratio: float = 0.95,
        max_pixels: int = MAX_PIXELS,
        phases: Sequence[float] = (BASE_PHASE,),
    ) -> None:
        if num_children < 0:
            raise ValueError(f"num_children={num_children}; at least 0 was needed")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={timeout_seconds}; more than 0 was needed")
        self._settings = ChildSettings(
            decoder=decoder,
            frame_rule=frame_rule,
            num_frames=num_frames,
            timeout_seconds=timeout_seconds,
            min_decoded_ratio=min_decoded_ratio,
            max_pixels=max_pixels,
            phases=tuple(phases),
        )
        self._choose = frame_chooser(frame_rule, num_frames, phases)
        self._decoder = get_decoder(decoder, max_pixels=max_pixels)
        self._children = [ChildProcess(self._settings) for _ in range(num_children)]
        self._idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> "DecodeChildren":
        if self._children:
            self._threads = ThreadPoolExecutor(len(self._children), "i2st-decode")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all children, also those that are busy; safe to call twice."""
        for child in self._children:
            child.retire()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        for child in self._children:
            child.end()

    def read_many(self, paths: Sequence[Path]) -> Iterator[DecodedClip | VideoError]:
        """Decode videos, some ahead of the caller, and yield the answers in the order of ``paths``.

        Args:
            paths: video files or folders of frames.

        Returns:
            Iterator of one clip or VideoError per path. At most two answers per child wait in
            memory. Reasons are those of `pipeline.decoding.read_clip`, timeout and poison.

        Raises:
            BackendError: a child cannot start.
        """
        if not self._children:
            return (self._read_here(path) for path in paths)
        if self._threads is None:
            raise ValueError("read_many needs the children; call it inside `with`")
        return self._read_ahead(self._threads, paths)

    def _read_here(self, path: Path) -> DecodedClip | VideoError:
        settings = self._settings
        try:
            return read_with(
                self._decoder, path, self._choose, settings.min_decoded_ratio, settings.max_pixels
            )
        except VideoError as error:
            return error

    def _read_ahead(
        self, threads: ThreadPoolExecutor, paths: Sequence[Path]
    ) -> Iterator[DecodedClip | VideoError]:
        waiting: deque[Future[DecodedClip | VideoError]] = deque()
        try:
            for path in paths:
                waiting.append(threads.submit(self._read_in_child, path))
                if len(waiting) >= _PREFETCH * len(self._children):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _read_in_child(self, path: Path) -> DecodedClip | VideoError:
        child = self._idle.get()
        try:
            return child.read(path)
        finally:
            self._idle.put(child)
