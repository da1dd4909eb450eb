"""Channel labels: which channels of a network can only be removed together. A union-find over numpy arrays."""

import numpy as np

FIXED = 0  # the label of every channel that must stay: inputs, outputs, what can't be followed


class Labels:
    """Labels are whole numbers; ``tie`` makes two of them one. ``FIXED`` wins over any other.

    >>> labels = Labels()
    >>> a, b = labels.new(3), labels.new(3)
    >>> labels.tie(a, b[::-1])
    >>> labels.find(b).tolist()
    [3, 2, 1]
    """

    def __init__(self):
        self.parent = np.zeros(1, np.int64)

    def new(self, count):
        """``count`` fresh labels, int64 ``(count,)``."""
        start = len(self.parent)
        fresh = np.arange(start, start + count)
        self.parent = np.concatenate([self.parent, fresh])
        return fresh

    def find(self, labels):
        """The representative of each label, same shape."""
        root = self.parent[labels]
        while True:
            above = self.parent[root]
            if np.array_equal(above, root):
                return root
            root = above

    def tie(self, one, other):
        """Make ``one`` and ``other`` (same shape, or one label) the same, element by element."""
        one, other = np.broadcast_arrays(self.find(one), self.find(other))
        differ = one != other
        for a, b in np.unique(np.stack([one[differ], other[differ]], 1), axis=0):
            a, b = self._root(a), self._root(b)
            self.parent[max(a, b)] = min(a, b)
        self.parent = self.find(np.arange(len(self.parent)))

    def _root(self, label):
        while self.parent[label] != label:
            label = self.parent[label]
        return label

    def fix(self, labels):
        """These channels stay."""
        self.tie(labels, FIXED)
