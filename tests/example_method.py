"""A method of another package: cosine of clips after a linear map that is trained."""

from torch import nn

from i2st_model.matching import unit
from i2st_model.methods.base import FewShotMethod


class Mapped(FewShotMethod):
    """Nearest class mean in a space of ``dim`` learnt features."""

    name = "mapped"
    trainable = True
    classes_apart = True

    def __init__(self, *, dim: int = 64) -> None:
        super().__init__()
        self.dim = dim

    def fit(self, train):
        self.map = nn.Linear(train.embedding_dim, self.dim)

    def prepare(self, clips):
        return {"clip": unit(self.map(clips.features.mean(dim=1)))}

    def score(self, support, query):
        prototypes = unit(support["clip"].mean(dim=2))
        return 10 * query["clip"] @ prototypes.transpose(1, 2)
