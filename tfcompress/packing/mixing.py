"""Bits guessed by several contexts at once, mixed, and written by an arithmetic coder: for short, structured data.

Each context keeps an adaptive probability; a small linear model in the logistic domain weighs them and learns from
every bit (Mahoney 2005, "Adaptive weighing of context models for lossless data compression"). All numbers are whole,
so that `unpack.c` comes to the same ones.
"""

import operator

LIMIT = 1023  # counts of a context's bits are 10 bits wide
FIRST_WEIGHT = 10_000  # of 65536


def _logistic():
    """`65536 / (1 + exp(-x / 256))` for x of -3072 .. 3071, in whole numbers, and its inverse at 4096 places."""
    power, decay = 1 << 30, 1069555701  # exp(-1/256) * 2**30
    upper = []
    for _ in range(3072):
        upper.append((65536 << 30) // ((1 << 30) + power))
        power = power * decay >> 30
    squash = [65536 - value for value in [*upper[1:], upper[-1]][::-1]] + upper
    squash = [min(max(value, 1), 65535) for value in squash]
    stretch, x = [], 0
    for probability in range(4096):
        while x < 6143 and squash[x] < probability * 16 + 8:
            x += 1
        stretch.append(x - 3072)
    return squash, stretch


SQUASH, STRETCH = _logistic()
RATE = [65536 * 2 // (2 * n + 3) for n in range(LIMIT + 1)]


class Encoder:
    """Binary arithmetic coder with a range of 32 bits, without carry (as in Mahoney's lpaq)."""

    def __init__(self):
        self.low, self.high, self.out = 0, 0xFFFFFFFF, bytearray()

    def code(self, probability: int, bit: int) -> int:
        """Write `bit`, which is 1 with `probability` / 65536; gives it back."""
        span = self.high - self.low
        middle = self.low + (span >> 16) * probability + ((span & 0xFFFF) * probability >> 16)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while not (self.low ^ self.high) & 0xFF000000:
            self.out.append(self.high >> 24)
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 0xFF
        return bit

    def finish(self) -> bytes:
        """All bytes; the decoder takes zeros for those behind them."""
        if self.low:
            self.out.append((self.low >> 24) + 1)
        while self.out and not self.out[-1]:
            self.out.pop()
        return bytes(self.out)


class Decoder:
    """Reads what `Encoder` wrote."""

    def __init__(self, content: bytes):
        self.content, self.place = content, 4
        self.low, self.high, self.value = 0, 0xFFFFFFFF, int.from_bytes(content[:4].ljust(4, b"\0"), "big")

    def code(self, probability: int, bit: None = None) -> int:
        """The next bit, which is 1 with `probability` / 65536."""
        span = self.high - self.low
        middle = self.low + (span >> 16) * probability + ((span & 0xFFFF) * probability >> 16)
        bit = int(self.value <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while not (self.low ^ self.high) & 0xFF000000:
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 0xFF
            byte = self.content[self.place] if self.place < len(self.content) else 0
            self.value = self.value << 8 & 0xFFFFFFFF | byte
            self.place += 1
        return bit


class Mixer:
    """Contexts' probabilities and the weights that mix them.

    Args:
        inputs: contexts a bit has.
        sets: sets of weights; which one is used is said with every bit.
        bits: each context has `2**bits` places for its probabilities.
        limit: a context's probability becomes the mean of about so many bits, at most 1023.
        rate: how fast weights learn.
    """

    def __init__(self, inputs: int, sets: int, bits: int, limit: int, rate: int):
        self.inputs, self.limit, self.rate = inputs, limit, rate
        self.table = [32768 << 10] * (inputs << bits)
        self.weights = [[FIRST_WEIGHT] * inputs for _ in range(sets)]

    def copy(self) -> "Mixer":
        """Another one that knows as much."""
        twin = Mixer.__new__(Mixer)
        twin.__dict__.update(self.__dict__, table=self.table[:], weights=self.weights[:])
        return twin

    def code(self, coder, slots, chosen: int, bit: int | None = None) -> int:
        """One bit through `coder`, with a place of `table` for each context and set number `chosen` of weights."""
        table, weights, limit = self.table, self.weights[chosen], self.limit
        states = [table[slot] for slot in slots]
        stretched = [STRETCH[state >> 14] for state in states]
        mixed = sum(map(operator.mul, weights, stretched)) >> 16
        probability = SQUASH[3072 + mixed if -3072 < mixed < 3072 else 0 if mixed < 0 else 6143]
        bit = coder.code(probability, bit)
        error = ((bit << 16) - probability) * self.rate
        self.weights[chosen] = [
            weight + (value * error + 131072 >> 18) for weight, value in zip(weights, stretched, strict=True)
        ]
        if bit:
            for slot, state in zip(slots, states, strict=True):
                count = state & 1023
                step = (65535 - (state >> 10)) * RATE[count] >> 16
                table[slot] = state + (step << 10) + (count < limit)
        else:
            for slot, state in zip(slots, states, strict=True):
                count = state & 1023
                step = (state >> 10) * RATE[count] >> 16
                table[slot] = state - (step << 10) + (count < limit)
        return bit
