"""A store of frames, read as features: an encoder runs whenever a row is asked for.

So everything that works on cached features works on frames, with an encoder that may have been
trained. Nothing is kept: the engine asks for each video once, and an encoder in training changes.

Shape letters: B rows, F stored frames, L grid cells, C token channels, E embedding channels, S side
of the view in pixels.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from i2st_model.end_to_end.frame_clips import FrameClips
from i2st_model.end_to_end.framing import Framing
from i2st_model.end_to_end.trainable import TrainableEncoder
from pipeline.encoders import FrameFeatures
from pipeline.encoders.encoding import encode_all
from pipeline.errors import ShardError
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import MaskRows, ShardReader
from pipeline.shards.records import FeatureShape


class EncodedFrames:
    """Rows of a store of frames as an encoder sees them; a `i2st_model.features.FeatureReader`.

    Args:
        frames: the store.
        encoder: makes the features, of the test view.

    Raises:
        ShardError: the store holds features.
    """

    def __init__(self, frames: ShardReader, encoder: TrainableEncoder) -> None:
        self.frames, self.encoder = frames, encoder
        self.weights_of: Path | None = None
        """Checkpoint whose weights the encoder was given; None for its initial ones."""
        self.framing = Framing(encoder.frozen.image_size, encoder.config.geometry)
        self.clips = FrameClips(frames, self.framing)
        self.index = feature_index(frames.index, encoder)
        self.folder = frames.folder
        self.video_ids, self.class_names = frames.video_ids, frames.class_names
        self.class_index, self.split, self.groups = frames.class_index, frames.split, frames.groups

    def tokens(self, rows: ArrayLike, views: ArrayLike | None = None) -> NDArray[np.float16]:
        """Return (B, F, L, C) token features of the rows; there is no view but the base view."""
        return self._stored(rows, views).tokens.numpy()

    def frame_embedding(
        self, rows: ArrayLike, views: ArrayLike | None = None
    ) -> NDArray[np.float16]:
        """Return (B, F, E) pooled embeddings of the rows; there is no view but the base view."""
        return self._stored(rows, views).embedding.numpy()

    def masks(self, rows: ArrayLike, views: ArrayLike | None = None) -> MaskRows:
        """Return the masks of train rows over the full frame."""
        return self.frames.masks(rows, views)

    def with_masks(self, rows: ArrayLike) -> NDArray[np.bool_]:
        """Return (B,): whether a mask was found in any frame of each train row."""
        return self.frames.with_masks(rows)

    def encode(self, rows: NDArray[np.int64], positions: NDArray[np.integer]) -> FrameFeatures:
        """Encode the test views of some frames of videos.

        Args:
            rows: (B,) rows of videos.
            positions: (T,) or (B, T) which stored frames of each.

        Returns:
            Tokens (B, T, L, C) and embedding (B, T, E), float16 on the CPU.
        """
        size = len(rows), positions.shape[-1]
        chosen = np.broadcast_to(positions, size)
        shown = self.clips.clips(rows, chosen, self.framing.middle(len(rows)))
        features = encode_all(
            self.encoder.frozen, shown.flatten(0, 1), self.encoder.config.frames_at_a_time
        )
        return FrameFeatures(
            features.tokens.unflatten(0, size), features.embedding.unflatten(0, size)
        )

    def _stored(self, rows: ArrayLike, views: ArrayLike | None) -> FrameFeatures:
        if views is not None and np.any(views):
            raise ShardError(
                f"a stored view was asked for, {self.folder} holds frames; views 0 were needed; "
                "train with --views base"
            )
        return self.encode(np.asarray(rows), np.arange(self.index.num_frames))


def feature_index(index: ShardIndex, encoder: TrainableEncoder) -> ShardIndex:
    """Index that features of the frames would have.

    Args:
        index: of the store of frames.
        encoder: makes the features.

    Returns:
        The same videos with the encoder's sizes and fingerprint; the digest stays that of the
        frames.
    """
    if index.stores != "frames":
        raise ShardError(
            f"the shards of {index.dataset_name} hold features; frames were needed to run an "
            "encoder; extract into another folder with `--store frames`"
        )
    frozen = encoder.frozen
    kept = {key: value for key, value in index.fingerprint.items() if key != "store"}
    return replace(
        index,
        fingerprint={
            **kept,
            "pixels": index.fingerprint["store"],
            "view": {"geometry": encoder.config.geometry},
            "encoder": encoder.fingerprint(),
        },
        shape=FeatureShape(
            num_frames=index.num_frames,
            num_tokens=frozen.grid**2,
            token_dim=frozen.token_dim,
            embedding_dim=frozen.embedding_dim,
        ),
    )
