"""`Recipe`: how a net is trained, as data; `RECIPES` holds the ones that the study uses."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training; `training.fit` reads them. `dataclasses.replace` makes variants.

    epochs, batch_size: an epoch is `samples` draws (None: as many as there are examples).
    learning_rate: peak of Adam; falls to 0 along a half cosine, or stays ("constant"). weight_decay > 0: AdamW.
    warmup: share of the steps in which the rate first rises from 0, before the cosine. Adam's first step is as long for
        a tiny gradient as for a great one: a trained net whose batch norm is folded can be lost in it.
    balance: examples are drawn with class probability ~ count ** (1 - balance): 0 = as they come, each once an epoch;
        0.5 = square root; 1 = all classes equally often.
    label_smoothing: share of the target that is spread over all classes.
    shift: most samples (pixels) by which an example is moved, either way, along each axis but the last.
    scale, noise, wander: deviation of a random gain, of white noise, and of a slow random wave (one sine over the
        first axis), in units of the input; 0 = none. They touch the first `noisy_channels` channels only (None: all).
    mixup: a > 0 mixes each example and its target with another one's, share drawn from Beta(a, a); 1 = any share
        alike. A student that learns from its teacher sees more than the examples then. Zhang et al., arXiv:1710.09412.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float = 0.0
    warmup: float = 0.0
    samples: int | None = None
    balance: float = 0.0
    label_smoothing: float = 0.0
    shift: int = 0
    scale: float = 0.0
    noise: float = 0.0
    wander: float = 0.0
    noisy_channels: int | None = None
    mixup: float = 0.0

    def __post_init__(self):
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule={self.schedule!r}; expected 'cosine' or 'constant'.")
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0 or not 0 <= self.balance <= 1:
            raise ValueError(f"{self}: expected epochs >= 1, batch_size >= 1, learning_rate > 0, 0 <= balance <= 1.")
        if not 0 <= self.warmup < 1 or (self.warmup and self.schedule != "cosine"):
            raise ValueError(f"warmup={self.warmup}; expected a share of the steps, 0 <= warmup < 1, of a cosine.")
        if not 0 <= self.mixup < math.inf:
            raise ValueError(f"mixup={self.mixup}; expected 0 (none) or the a > 0 of Beta(a, a).")


RECIPES = {
    "digits": Recipe(epochs=15, batch_size=64, learning_rate=2e-3, shift=2),
    "fashion_mnist": Recipe(epochs=8, batch_size=128, learning_rate=3e-3, shift=1),
    "spoken_digits": Recipe(epochs=60, batch_size=32, learning_rate=2e-3, shift=3, noise=0.3, mixup=0.3),
    # An epoch draws 12,000 of 40,170 beats: normal beats are many and alike. Chosen on the patients of DS1 alone.
    "ecg_cnn": Recipe(epochs=6, batch_size=128, learning_rate=1e-3, balance=0.5, samples=12_000),
    "ecg_resnet": Recipe(epochs=6, batch_size=128, learning_rate=1e-3, balance=0.5, samples=12_000),
    # What is left of them after pruning learns from the control, from mixed beats.
    "ecg_cnn_tune": Recipe(epochs=16, batch_size=128, learning_rate=3e-3, balance=0.5, samples=12_000, mixup=1.0),
    "ecg_resnet_tune": Recipe(epochs=8, batch_size=128, learning_rate=1e-3, balance=0.5, samples=12_000, mixup=1.0),
}
