"""Knowledge distillation: losses as plain functions, and `Distiller` around a student."""

from tfcompress.distillation.distiller import Distiller
from tfcompress.distillation.losses import recover_logits, soft_targets

__all__ = ["Distiller", "recover_logits", "soft_targets"]
