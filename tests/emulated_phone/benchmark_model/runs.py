"""The loop that repeats a run, and the numbers about it."""

import os
import time

from emulated_phone.benchmark_model.log import info


class Stat:
    """Times in whole microseconds, printed as the tool's `Stat` class does."""

    def __init__(self, times: list[int]):
        self.times, self.count = times, len(times)
        self.mean = sum(times) / len(times) if times else 0.0
        variance = sum((t - self.mean) ** 2 for t in times) / len(times) if times else 0.0
        self.std = int(variance**0.5)
        self.ordered = sorted(times)

    def percentile(self, percent: int) -> int:
        return self.ordered[self.count * percent // 100] if self.count else 0

    def __str__(self) -> str:
        words = [f"count={self.count}"]
        if self.count and self.ordered[0] == self.ordered[-1]:
            words.append(f"curr={self.times[-1]}" + ("(all same)" if self.count > 1 else ""))
        elif self.count:
            words.append(f"first={self.times[0]} curr={self.times[-1]} min={self.ordered[0]} max={self.ordered[-1]} "
                         f"avg={self.mean:g} std={self.std}")  # fmt: skip
        words.append(f"p5={self.percentile(5)} median={self.percentile(50)} p95={self.percentile(95)}")
        return " ".join(words)


def repeat(once, at_least: int, min_secs: float, max_secs: float, delay: float, frequency: float) -> Stat:
    """Call `once` as long as the real loop would; a test's EMULATED_HURRY=100 makes its seconds that much shorter."""
    info(f"Running benchmark for at least {at_least} iterations and at least {min_secs:g} seconds but terminate if "
         f"exceeding {max_secs:g} seconds.")  # fmt: skip
    times, hurry = [], float(os.environ.get("EMULATED_HURRY", 1))
    min_secs, max_secs, delay, frequency = min_secs / hurry, max_secs / hurry, delay / hurry, frequency * hurry
    now = time.perf_counter_ns() // 1000
    earliest, latest, next_end = now + int(min_secs * 1e6), now + int(max_secs * 1e6), now * 1e-6
    while (len(times) < at_least or now < earliest) and now <= latest:
        begin = time.perf_counter_ns()
        once()
        times.append((time.perf_counter_ns() - begin) // 1000)
        if frequency > 0:
            next_end += 1 / frequency
            delay = next_end - time.perf_counter_ns() * 1e-9
        if delay > 0:
            time.sleep(delay)
        now = time.perf_counter_ns() // 1000
    found = Stat(times)
    info(f"{found}\n")
    return found
