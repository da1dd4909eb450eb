"""``ADMM``: weights of a few levels, found by training under a penalty that draws them to their exact projection."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from tfcompress.layout import kernels
from tfcompress.method import Method, serializable
from tfcompress.model import leaves
from tfcompress.quantization.groups import check_scales, group_count, spread
from tfcompress.quantization.projection import check_levels, project_groups


@serializable
@dataclass(frozen=True)
class ADMM(Method):
    """Forward ``w``, with ``rho / 2 * ||w - z + u||^2`` added to the loss; from ``end`` on ``scale * codes``.

    In each of ``rounds`` rounds, evenly spread from ``begin`` to ``end``: ``z`` is the exact projection of ``w + u``
    onto ``alpha * codes`` (``projection.project``), ``u += w - z``; then ``rho`` grows and ``u`` shrinks as much, as it
    counts in units of ``1 / rho``. At ``end`` the codes are frozen; then biases, batch norms and scales are fine-tuned,
    the scales as gains around 1, so that an optimizer's step means the same in every layer. Weights that another method
    has pruned stay zero: ``Chain((Prune(...), ADMM(...)))``. Leng et al. 2018, "Extremely low bit neural network:
    squeeze the last bit out with ADMM" (arXiv:1707.09870); their extragradient steps: compile with ``ExtraGradient``.

    Args:
        levels: magnitudes of the codes: (1,), (0, 1), (0, 1, 2), (0, 1, 2, 4), (0, 1, 2, 4, 8) are the paper's.
        end, begin: optimizer steps between which the rounds lie; train on behind ``end``.
        scales: "tensor" (the paper's), "channel", or a number of groups along the last axis (4: the gates of an LSTM).
        rounds: of z and u.
        rho: penalties of the first and of the last round, geometric between them; the last one far above the loss's
            curvature, so that w ends at z.
        keep_best: at each round the loss on ``CompressionCallback(data=(x, y))`` is taken with the weights at z, and
            the best z, of all rounds and the end, is what is frozen.

    Raises:
        ValueError: levels that don't grow, end <= begin, rounds < 1, rho that is not 0 < first <= last.

    >>> import numpy as np
    >>> method = ADMM((0, 1), end=100, rounds=2, rho=(0.1, 1))
    >>> w = np.array([[1.0], [-0.8], [0.1]], "float32")
    >>> state = method.update({"w": w}, {"w": method.init(w)}, step=0)["w"]
    >>> [round(float(v), 3) for v in state["z"].ravel()]
    [0.9, -0.9, 0.0]
    >>> round(float(method.penalty(w, state)), 4)            # 0.1 / 2 * (0.1 ** 2 + 0.1 ** 2 + 0.1 ** 2)
    0.0015
    >>> state = method.update({"w": w}, {"w": state}, step=100)["w"]
    >>> [round(float(v), 3) for v in np.ravel(method.apply(w, state))]
    [0.9, -0.9, 0.0]
    """

    levels: tuple = (0, 1, 2, 4)
    end: int = 1000
    begin: int = 0
    scales: object = "tensor"
    rounds: int = 20
    rho: tuple = (1e-3, 3.0)
    keep_best: bool = False

    trainable = ("gain",)

    def __post_init__(self):
        object.__setattr__(self, "levels", check_levels(self.levels))    # JSON gives a list back
        check_scales(self.scales)
        if not 0 <= self.begin < self.end:
            raise ValueError("The rounds are spread from `begin` to `end`, optimizer steps: epochs * ceil(samples / "
                             f"batch_size). Received: begin={self.begin!r}, end={self.end!r}.")
        object.__setattr__(self, "rho", tuple(self.rho))
        if self.rounds < 1 or len(self.rho) != 2 or not 0 < self.rho[0] <= self.rho[1]:
            raise ValueError("Expected rounds >= 1 and rho=(first, last), 0 < first <= last. Received: "
                             f"rounds={self.rounds!r}, rho={self.rho!r}.")

    @property
    def bits(self):
        """Of a fixed-width code: 1 for +-1, 2 for three levels, 3 for five or seven, 4 for nine."""
        count = 2 * len(self.levels) - (self.levels[0] == 0)
        return int(np.ceil(np.log2(count)))

    @property
    def needs_model(self):
        return self.keep_best

    @property
    def starts(self):
        """The optimizer steps at which rounds begin."""
        return tuple(self.begin + (self.end - self.begin) * i // self.rounds for i in range(self.rounds))

    @property
    def milestones(self):
        return tuple(step for step in (*self.starts, self.end) if step)

    def init(self, w):
        """``rho`` is 0 before the first round; ``round`` counts those begun, and one more when codes are frozen."""
        zero, scale = np.zeros(w.shape, "float32"), np.zeros(group_count(w.shape, self.scales), "float32")
        best = {"best": zero, "best_loss": np.float32(np.inf)} if self.keep_best else {}
        return best | {"z": zero, "u": zero, "rho": np.float32(0), "round": np.float32(0), "frozen": np.float32(0),
                       "scale": scale, "gain": np.ones_like(scale)}

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        scale = spread(state["scale"] * ops.convert_to_tensor(state["gain"]), w.shape, self.scales)
        fixed = state["z"] * scale + (w - ops.stop_gradient(w))          # z holds the codes once they are frozen
        fixed = ops.where(w == 0, 0.0, fixed)            # pruned since
        return ops.where(ops.convert_to_tensor(state["frozen"]) > 0, fixed, w)

    def bake(self, w, state):
        """Before the end: where the weights would land."""
        if state["frozen"] > 0:
            return self.apply(w, state)
        return self._nearest(ops.convert_to_numpy(w), np.asarray(state["u"]))

    def _nearest(self, w, u):
        """The projection of ``w + u``; what is exactly 0 in ``w`` is pruned, whatever ``u`` remembers of it."""
        scale, codes = project_groups(np.where(w == 0, 0, w + u), self.levels, self.scales)
        return codes * spread(scale, codes.shape, self.scales, np)

    def penalty(self, w, state):
        return 0.5 * state["rho"] * ops.sum(ops.square(w - state["z"] + state["u"]))

    def _rho(self, number):
        """Of round ``number``, 1 to ``rounds``."""
        first, last = self.rho
        return np.float32(first * (last / first) ** ((number - 1) / max(1, self.rounds - 1)))

    def _due(self, step):
        return sum(start <= step for start in (*self.starts, self.end))

    def idle(self, states, step):
        return self._due(step) <= min(int(state["round"]) for state in states.values())

    def update(self, weights, states, step, model=None, data=None):
        if self.idle(states, step):
            return states
        due = np.float32(self._due(step))
        if step >= self.end:
            last = {path: states[path] | {"z": self._nearest(w, states[path]["u"])} for path, w in weights.items()}
            if self.keep_best:
                self._remember(last, model, data)
            return {path: state | self._frozen(state) | {"round": due} for path, state in last.items()}
        rho, new = self._rho(int(due)), {}
        for path, w in weights.items():
            u = states[path]["u"]
            z = self._nearest(w, u)
            u = (u + w - z) * (states[path]["rho"] / rho)                # before the first round rho is 0
            new[path] = states[path] | {"z": z, "u": u, "rho": rho, "round": due}
        if self.keep_best:
            self._remember(new, model, data)
        return new

    def _frozen(self, state):
        """The codes and scales of the best z, or of the last one."""
        scale, codes = project_groups(state["best"] if self.keep_best else state["z"], self.levels, self.scales)
        return {"z": codes, "u": np.zeros_like(codes), "rho": np.float32(0), "frozen": np.float32(1), "scale": scale}

    def _remember(self, states, model, data):
        """Keep the z's of ``states`` as the best where the network loses least on ``data`` with them."""
        if model is None or data is None:
            raise ValueError("keep_best judges by examples: pass CompressionCallback(data=(x, y)). Received: none.")
        for owner, layer in leaves(model):
            for key, (variable, view) in kernels(layer).items():
                if f"{owner}/{key}" in states:
                    variable.assign(view.back(states[f"{owner}/{key}"]["z"], np))
        loss = np.float32(np.ravel(model.evaluate(*data, verbose=0))[0])
        for state in states.values():
            if loss < state["best_loss"]:
                state |= {"best": state["z"], "best_loss": loss}
