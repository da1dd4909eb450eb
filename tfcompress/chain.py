"""Several methods on one tensor, in order: ``Chain((Prune(...), Uniform(8)))``."""

from dataclasses import dataclass

from keras import ops

from tfcompress.method import Method, serializable


@serializable
@dataclass(frozen=True)
class Chain(Method):
    """Apply ``methods`` one after the other; each sees what the one before it made of the weight.

    State of method ``i`` is kept under ``"i.name"``. Penalties add up. A latent weight that a method rewrites (soft
    pruning) is passed on to the methods behind it and to the layer.

    >>> from tfcompress import Chain, Float16, Uniform
    >>> Chain((Float16(), Chain((Uniform(4), Uniform(8))))).methods     # nested chains are flattened
    (Float16(), Uniform(bits=4, per_channel=True), Uniform(bits=8, per_channel=True))
    """

    methods: tuple

    def __post_init__(self):
        flat = []
        for method in self.methods:                      # JSON gives a list back; nested chains become one
            flat.extend(method.methods if isinstance(method, Chain) else [method])
        object.__setattr__(self, "methods", tuple(flat))

    @property
    def trainable(self):
        return tuple(f"{i}.{name}" for i, m in enumerate(self.methods) for name in m.trainable)

    @property
    def bits(self):
        known = [m.bits for m in self.methods if m.bits is not None]
        return min(known) if known else None

    @property
    def needs_model(self):
        return any(m.needs_model for m in self.methods)

    @property
    def structured(self):
        return any(m.structured for m in self.methods)

    @property
    def milestones(self):
        return tuple(step for m in self.methods for step in m.milestones)

    @staticmethod
    def part(i, state):
        """The state of method ``i`` alone."""
        prefix = f"{i}."
        return {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}

    @property
    def vectors_last(self):
        return any(m.vectors_last for m in self.methods)

    def idle(self, states, step):
        return all(m.idle({path: self.part(i, state) for path, state in states.items()}, step)
                   for i, m in enumerate(self.methods))

    def init(self, w):
        state = {}
        for i, method in enumerate(self.methods):
            own = method.init(w)
            state.update({f"{i}.{name}": value for name, value in own.items()})
            w = ops.convert_to_numpy(method.apply(w, own))
        return state

    def apply(self, w, state):
        for i, method in enumerate(self.methods):
            w = method.apply(w, self.part(i, state))
        return w

    def bake(self, w, state):
        for i, method in enumerate(self.methods):
            w = method.bake(w, self.part(i, state))
        return w

    def penalty(self, w, state):
        total = None
        for i, method in enumerate(self.methods):
            own = self.part(i, state)
            penalty = method.penalty(w, own)
            if penalty is not None:
                total = penalty if total is None else total + penalty
            w = method.apply(w, own)
        return total

    def update(self, weights, states, step, model=None, data=None):
        new = {path: {} for path in weights}
        for i, method in enumerate(self.methods):
            own = {path: self.part(i, state) for path, state in states.items()}
            own = method.update(weights, own, step, model, data)
            seen = {}
            for path, state in own.items():
                state = dict(state)
                rewritten = state.pop("weight", None)
                if rewritten is not None:
                    new[path]["weight"] = rewritten
                new[path].update({f"{i}.{name}": value for name, value in state.items()})
                base = weights[path] if rewritten is None else rewritten
                seen[path] = ops.convert_to_numpy(method.apply(base, state))
            weights = seen
        return new
