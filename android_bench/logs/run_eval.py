"""What TFLite's evaluation tools (`run_eval` of inference_diff and imagenet_image_classification) print -> numbers."""

import re
from dataclasses import dataclass

from android_bench.logs.log_lines import LogError, find_number, number, printable, read_lines


@dataclass(frozen=True)
class RunEval:
    """What an evaluation tool printed; times in µs. `None` or empty = not printed.

    Attributes:
        runs: samples that were run.
        mean_us, std_us: of inference, on what was tested.
        reference_us: mean of the same on the plain CPU (inference_diff).
        preprocessing_us: mean (imagenet).
        top_k: k -> accuracy, 0..1 (imagenet).
        output_errors: mean absolute difference from the plain CPU for each output (inference_diff).
    """

    runs: int | None
    mean_us: float | None
    std_us: float | None
    reference_us: float | None
    preprocessing_us: float | None
    top_k: dict[int, float]
    output_errors: tuple[float | None, ...]


def parse_run_eval(text: str) -> RunEval:
    """Read the output of a `run_eval` (inference_diff, imagenet_image_classification).

    >>> parse_run_eval("Num evaluation runs: 300\\nTop-1 Accuracy: 0.733333").top_k
    {1: 0.733333}

    Raises:
        LogError: no line of such a tool is in the text.
    """
    lines, _ = read_lines(text)
    body = "\n".join(line.message for line in lines)
    runs = find_number(r"^Num evaluation runs: (\S+)", body)
    tested = r"^(?:Test run|Inference) latency: avg="
    found = RunEval(
        runs=None if runs is None or runs > 2**53 else int(runs),
        mean_us=find_number(tested + r"([^(\s]+)\(us\)", body),
        std_us=find_number(tested + r"[^(\s]+\(us\), std_dev=([^(\s]+)\(us\)", body),
        reference_us=find_number(r"^Reference run latency: avg=([^(\s]+)\(us\)", body),
        preprocessing_us=find_number(r"^Preprocessing latency: avg=([^(\s]+)\(us\)", body),
        top_k=_top_k(body),
        output_errors=tuple(map(number, re.findall(r"^OutputDiff\[\d+\]: avg_error=([^,\s]+)", body, re.M))),
    )
    if found == RunEval(None, None, None, None, None, {}, ()):
        raise LogError(f"Expected the output of run_eval ('Num evaluation runs: ...'). Received: {printable(body)!r}")
    return found


def _top_k(body: str) -> dict[int, float]:
    found = re.findall(r"^Top-(\d{1,6}) Accuracy: (\S+)", body, re.M)
    shares = {int(k): number(share) for k, share in found}
    return {k: share for k, share in shares.items() if share is not None and share <= 1}
