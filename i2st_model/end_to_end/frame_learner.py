"""A head on an encoder that trains with it, as something that `train` trains.

Shape letters: B clips of a pool, T frames, S side of the view in pixels, L grid cells, C token
channels, E embedding channels.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.frame_draws import FrameDraws
from i2st_model.end_to_end.trainable import TrainableEncoder
from i2st_model.training.data import Batch, ClipSource
from i2st_model.training.head import Ground, Head
from i2st_model.training.learner import Learner
from i2st_model.training.pool_losses import Losses, RatedParameters
from i2st_model.training.precision import encoding
from i2st_model.training.setup import INITIAL, torch_seed

ADAPTERS = INITIAL - 1
"""Number of the torch seed that adapters are drawn from; no step reaches it."""


class EndToEnd(nn.Module):
    """An encoder and what stands on its features; both names are those in the checkpoint."""

    def __init__(self, encoder: TrainableEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def features(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, T, S, S, 3) uint8 views: tokens (B, T, L, C), embeddings (B, T, E) float32."""
        tokens, embedding = self.encoder(views.flatten(0, 1))
        frames = views.shape[:2]
        return tokens.unflatten(0, frames), embedding.unflatten(0, frames)


class FrameLearner(Learner):
    """Trains an encoder and the head on it, which may have no weights of its own.

    The head is built on the initial encoder, and fitted to what that makes of frames. ``compile``
    reaches the head alone: compiling a small ResNet took minutes.

    Args:
        ground: what the run trains on: frames, read through the encoder of ``config.encoder``; that
            encoder is put back to its initial weights, and trained.
        head: what stands on it.
    """

    network: EndToEnd

    def __init__(self, ground: Ground, head: type[Head]) -> None:
        store = ground.store
        assert isinstance(store.reader, EncodedFrames)
        self._reader, self._encoder = store.reader, store.reader.encoder
        self._encoder.frozen.to(ground.device)
        self._encoder.reset(torch_seed(ground.config.seed, ADAPTERS))
        self._reader.weights_of = None
        super().__init__(ground, head)
        self.network = EndToEnd(self._encoder, self.head.module)

    def rated_parameters(self) -> list[RatedParameters]:
        """Those of the head, and the encoder's at a rate of their own."""
        rate, trained = self._encoder.config.rate, list(self._encoder.trained.values())
        return [*self.head.rated_parameters(), RatedParameters(parameters=trained, rate=rate)]

    def source(self) -> ClipSource:
        """Frames in random crops; nothing is kept, since the encoder changes."""
        return FrameDraws(self.config, self.store, self._reader, self.device)

    def losses(self, batch: Batch) -> Losses:
        """What the head makes of the encoder's features of the pool."""
        with encoding(self.config, self.device):
            features = self.network.features(batch.seen)
        return self.head.losses(self.head.of_encoder(batch.pool.rows.ravel(), *features), batch)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Describe the test views of videos."""
        tokens, embedding = self.store.test_clips(rows, "tokens", with_embedding=True)
        assert embedding is not None
        seen = self.head.of_encoder(rows, tokens.to(self.device), embedding.to(self.device))
        return self.head.prepare(seen)
