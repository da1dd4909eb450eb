"""The 17 + 1 cells of the study, as data.

A cell is an id and the ordered steps that lead from the trained control to the file on the device. The order
matters: `P70Q8` prunes, then quantizes what is left; `Q8P70` quantizes in training, then prunes the quantized weights.

>>> [cell.id for cell in cells()]  # doctest: +NORMALIZE_WHITESPACE
['C0', 'P70', 'P80', 'P90', 'Q16', 'Q8',
 'P70Q16', 'P70Q8', 'P80Q16', 'P80Q8', 'P90Q16', 'P90Q8',
 'Q16P70', 'Q16P80', 'Q16P90', 'Q8P70', 'Q8P80', 'Q8P90']
>>> cells()[-1].recipe
'int8 in training, then prune 90 %'
"""

from dataclasses import dataclass

SECOND_SIX = ("reversed_order", "qat", "kd")


@dataclass(frozen=True)
class Prune:
    """Set this fraction of each kernel to zero: the smallest magnitudes, step by step, in training."""

    sparsity: float

    def __str__(self):
        return f"prune {round(100 * self.sparsity)} %"


@dataclass(frozen=True)
class Quantize:
    """16: float16 weights. 8: full int8, activations too. `in_training`: fine-tuned under that rounding."""

    bits: int
    in_training: bool = False

    def __str__(self):
        return ("int8" if self.bits == 8 else "float16 weights") + (" in training" if self.in_training else "")


@dataclass(frozen=True)
class Distill:
    """The control teaches the fine-tuning: what `Distiller` takes. alpha 1: it alone, without the labels."""

    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self):
        if not (self.temperature > 0 and 0 < self.alpha <= 1):
            raise ValueError(f"Expected temperature > 0 and 0 < alpha <= 1. Received: {self!r}.")

    def __str__(self):
        return "taught by the control" + ("" if self.alpha == 1 else " and the labels")


@dataclass(frozen=True)
class Cell:
    """One variant: `steps` in the order in which they are done; `taught`: in which way by the control, if at all."""

    id: str
    steps: tuple[Prune | Quantize, ...] = ()
    taught: Distill | None = None

    @property
    def sparsity(self) -> float:
        """The target share of zeros, 0 where nothing is pruned."""
        return next((s.sparsity for s in self.steps if isinstance(s, Prune)), 0.0)

    @property
    def quantize(self) -> Quantize | None:
        return next((s for s in self.steps if isinstance(s, Quantize)), None)

    @property
    def precision(self) -> str:
        """The precision of the file: `float32`, `float16` or `int8`."""
        return {None: "float32", 16: "float16", 8: "int8"}[self.quantize.bits if self.quantize else None]

    @property
    def trains(self) -> bool:
        """False for the control and for post-training quantization alone."""
        return self.sparsity > 0 or bool(self.quantize and self.quantize.in_training)

    @property
    def recipe(self) -> str:
        """The steps in words."""
        words = ", then ".join(str(step) for step in self.steps) or "control: the base model, float32"
        return words + (f", {self.taught}" if self.taught else "")


def cells(second_six: str = "reversed_order") -> tuple[Cell, ...]:
    """The 18 cells in their fixed order; the last six by `second_six`.

    `reversed_order`: quantized in training, then pruned (`Q8P70`); `qat`: pruned, then quantized in training
    (`P70QAT8`); `kd`: pruned, then quantized after a fine-tuning that the control teaches (`P70Q8KD`).

    >>> [cell.id for cell in cells("qat")][12:15]
    ['P70QAT16', 'P70QAT8', 'P80QAT16']
    """
    prunes = [Prune(s) for s in (0.7, 0.8, 0.9)]
    percent = {p: f"P{round(100 * p.sparsity)}" for p in prunes}
    first = [Cell("C0")]
    first += [Cell(percent[p], (p,)) for p in prunes]
    first += [Cell(f"Q{bits}", (Quantize(bits),)) for bits in (16, 8)]
    first += [Cell(f"{percent[p]}Q{bits}", (p, Quantize(bits))) for p in prunes for bits in (16, 8)]
    if second_six == "reversed_order":
        last = [Cell(f"Q{b}{percent[p]}", (Quantize(b, in_training=True), p)) for b in (16, 8) for p in prunes]
    elif second_six == "qat":
        last = [Cell(f"{percent[p]}QAT{b}", (p, Quantize(b, in_training=True))) for p in prunes for b in (16, 8)]
    elif second_six == "kd":
        last = [Cell(f"{percent[p]}Q{b}KD", (p, Quantize(b)), Distill()) for p in prunes for b in (16, 8)]
    else:
        raise ValueError(f"Unknown second_six: received {second_six!r}, expected one of {', '.join(SECOND_SIX)}.")
    return tuple(first + last)
