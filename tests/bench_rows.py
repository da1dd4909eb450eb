"""Rows as the runner writes them, with plain numbers: phones × six models, one thing of each kind that can go wrong."""

import hashlib

import numpy as np

from android_bench.result import Result
from android_bench.stats import outliers, summary

MODELS = {  # id -> words, microseconds on the first phone, accuracy, bytes
    "C0": ("the float control", 182.0, 0.912, 201_344),
    "P70": ("prune 70 %", 181.0, 0.911, 201_344),
    "Q16": ("float16", 178.0, 0.912, 101_200),
    "Q8": ("int8", 64.0, 0.909, 54_272),
    "P90Q8": ("prune 90 %, int8", 63.0, 0.905, 54_272),
    "D4": ("4-bit weights", 121.0, 0.871, 31_840),
}
PIXEL = dict(
    device="Pixel 7", serial="2A111FDH2000AB", maker="Google", soc="Google GS201 (Tensor G2)", abi="arm64-v8a",
    android="14", form="phone", ram_bytes=7_780_000_000, screen="on",
    fingerprint="google/panther/panther:14/AP1A.240505.004/11583682:user/release-keys",
    clusters=[{"cpus": [0, 1, 2, 3], "max_khz": 1803000}, {"cpus": [4, 5], "max_khz": 2348000},
              {"cpus": [6, 7], "max_khz": 2850000}],
    battery={"percent": 78, "plugged": [], "celsius": 27.4}, fixed_performance=True, slower=1.0, spread=0.01,
)  # fmt: skip
GALAXY = dict(
    device="Galaxy A54", serial="R5CW30XYZAB", maker="samsung", soc="Samsung s5e8835 (Exynos 1380)", abi="arm64-v8a",
    android="13", form="phone", ram_bytes=5_600_000_000, screen="off",
    fingerprint="samsung/a54xnaxx/a54x:13/TP1A.220624.014/A546BXXU3AWF7:user/release-keys",
    clusters=[{"cpus": [0, 1, 2, 3], "max_khz": 2002000}, {"cpus": [4, 5, 6, 7], "max_khz": 2400000}],
    battery={"percent": 64, "plugged": ["USB"], "celsius": 31.0}, fixed_performance=False, slower=2.1, spread=0.06,
)  # fmt: skip


def make_rows(phones=(PIXEL, GALAXY), *, host=True, repetitions=5, seed=7) -> list[Result]:
    """The rows of a whole run: every model on every phone, a GPU row on the first, a crash on the second, the host."""
    random = np.random.default_rng(seed)
    rows = []
    for number, phone in enumerate(phones):
        order = iter(random.permutation(repetitions * len(MODELS)))
        heat = 0.0
        for id in MODELS:
            heat += 0.35 if number == 1 else 0.1
            throttled = number == 1 and id in ("Q16", "P90Q8")
            rows.append(phone_row(phone, id, random, order, repetitions, heat=heat, throttled=throttled))
        if number == 0:
            rows[-6] = with_sustain(rows[-6])
            rows.append(on_gpu(rows[-6]))
        if number == 1:
            rows.append(crashed(rows[-3]))
    return rows + [host_row(id) for id in MODELS if host]


def make_phones(count: int) -> list[dict]:
    """That many different phones."""
    return [
        PIXEL | dict(device=f"Phone {k + 1}", serial=f"SN{k:04}", slower=1 + 0.15 * k) if k % 2 == 0
        else GALAXY | dict(device=f"Phone {k + 1}", serial=f"SN{k:04}", slower=1 + 0.15 * k)
        for k in range(count)
    ]  # fmt: skip


def phone_row(phone, id, random, order, repetitions, *, heat=0.0, throttled=False, emulated=True) -> Result:
    """One model on one phone, all of it measured; energy only where the phone's battery is not charging."""
    words, base, accuracy, size = MODELS[id]
    facts = {name: value for name, value in phone.items() if name not in ("device", "slower", "spread")}
    middle = base * phone["slower"]
    runs = [
        repetition(middle * (1 + phone["spread"] * random.standard_normal()), int(next(order)), 29 + heat,
                   "clock limit of cores 4-7 was 1690 of 2400 MHz" if throttled and k >= repetitions - 2 else None)
        for k in range(repetitions)
    ]  # fmt: skip
    medians = [run["p50_us"] for run in runs]
    for run, wild in zip(runs, outliers(medians), strict=True):
        run["outlier"] = bool(wild)
    facts |= dict(
        delegate_asked="cpu", job_seed=7, repetitions=runs, system_cpu_percent=14.2, host_agreement=0.996,
        host_max_difference=0.0041, eval_samples=1000, eval_how="one run, batch of 1000",
        outlier_repetitions=sum(run["outlier"] for run in runs),
        throttled_repetitions=sum(run["throttled"] is not None for run in runs),
        binary={"sha256": hashlib.sha256(b"tool").hexdigest(), "tool": "tflite"}, attempts=1,
    )  # fmt: skip
    if emulated:
        facts["emulated"] = True
    joules = None
    if phone["battery"]["plugged"]:
        facts["energy"] = {"refused": "the phone was charging over USB (status 2)", "minutes_needed": 12.0}
    else:
        joules = 2.4e-6 * middle
        facts["energy"] = dict(
            joules=joules, low=0.94 * joules, high=1.06 * joules, source="odpm", resolution_joules=1e-5,
            idle_watts=0.61, load_watts=3.01, seconds=60.0, rule="rails S2M_VDD_CPUCL0..2, mWs",
        )  # fmt: skip
    found = summary(medians)
    return Result(
        id=id, recipe=words, device=phone["device"], device_kind="emulated" if emulated else "android",
        model_sha256=hashlib.sha256(id.encode()).hexdigest(), accuracy=accuracy, macro_f1=accuracy - 0.06,
        raw_bytes=size, latency_p5_us=0.97 * found["p50"], latency_p50_us=found["p50"],
        latency_p95_us=1.09 * found["p50"], latency_mean_us=1.01 * found["p50"], latency_std_us=0.05 * found["p50"],
        latency_min_us=0.95 * found["p50"], latency_max_us=1.9 * found["p50"], first_run_us=2.4 * middle,
        init_us=1240.0, runs=sum(run["count"] for run in runs), threads=1, delegate="xnnpack", cpu_percent=98.7,
        peak_memory_bytes=11_700_000, energy_joules=joules, energy_source="odpm" if joules else None, facts=facts,
    )  # fmt: skip


def repetition(p50, order, celsius, throttled=None) -> dict:
    """One process of benchmark_model: microseconds, clocks, temperatures before and after."""
    p50 = round(float(p50) * (1.3 if throttled else 1), 1)
    return dict(
        p5_us=round(0.97 * p50, 1), p50_us=p50, p95_us=round(1.09 * p50, 1), mean_us=1.01 * p50, std_us=0.05 * p50,
        min_us=0.95 * p50, max_us=1.9 * p50, count=int(1e6 / p50) + 1, init_us=1240.0, first_us=2.4 * p50,
        cpu_percent=98.7, system_percent=14.2, clocks_khz=[1803000, 2348000, 2850000],
        celsius_before={"skin": celsius + 0.05 * order, "battery": celsius - 2, "cpu": celsius + 6},
        celsius_after={"skin": celsius + 0.05 * order + 0.8, "battery": celsius - 1.7, "cpu": celsius + 19},
        status_before=0, status_after=1 if throttled else 0, throttled=throttled, outlier=False, order=order,
        started=f"2026-11-22T12:{order:02}:05+00:00", cooled=None,
    )  # fmt: skip


def with_sustain(row: Result) -> Result:
    """The row with a curve of half an hour: 12 % slower after 5 minutes, 40 % after 30."""
    curve = [
        {"minute": m, "p50_us": row.latency_p50_us * (1 + 0.42 * (1 - 0.93**m)), "celsius": 30 + 12 * (1 - 0.9**m),
         "status": int(m > 8), "clocks_khz": [1803000, 2348000, 2850000 if m < 8 else 2252000]}
        for m in range(1, 31)
    ]  # fmt: skip
    return row.replace(facts=row.facts | {"sustain": curve})


def on_gpu(row: Result) -> Result:
    """The same model asked for on the GPU, which took part of it."""
    facts = {key: value for key, value in row.facts.items() if key not in ("sustain", "energy")}
    facts |= dict(delegate_asked="gpu", delegate_note="GPU took 294 of 318 nodes, in 3 partitions",
                  host_agreement=0.97, outlier_repetitions=0)  # fmt: skip
    one = repetition(1.8 * row.latency_p50_us, 30, 29.5)
    return row.replace(
        delegate="gpu", latency_p50_us=1.8 * row.latency_p50_us, latency_p5_us=1.7 * row.latency_p50_us,
        latency_p95_us=2.2 * row.latency_p50_us, latency_min_us=1.6 * row.latency_p50_us, energy_joules=None,
        energy_source=None, facts=facts | {"repetitions": [one]},
    )  # fmt: skip


def crashed(row: Result) -> Result:
    """The same model asked for on NNAPI, where the process died."""
    keep = ("serial", "maker", "soc", "abi", "android", "emulated", "job_seed", "clusters", "screen", "battery")
    facts = {key: row.facts[key] for key in keep} | {"delegate_asked": "nnapi", "attempts": 2,
             "failures": ["exit code 139: the process crashed (SIGSEGV)"] * 2}  # fmt: skip
    return Result(
        id=row.id, recipe=row.recipe, device=row.device, device_kind="emulated", model_sha256=row.model_sha256,
        threads=1, error="exit code 139: the process crashed (SIGSEGV)", facts=facts,
    )  # fmt: skip


def host_row(id: str) -> Result:
    """The model on this computer, as `android_bench.host` gives it: one process, no energy."""
    words, base, accuracy, size = MODELS[id]
    middle = 0.45 * base
    return Result(
        id=id, recipe=words, device="this computer", device_kind="host", accuracy=accuracy, macro_f1=accuracy - 0.06,
        model_sha256=hashlib.sha256(id.encode()).hexdigest(), raw_bytes=size, latency_p5_us=0.98 * middle,
        latency_p50_us=middle, latency_p95_us=1.1 * middle, latency_mean_us=1.02 * middle, latency_std_us=2.0,
        latency_min_us=0.96 * middle, latency_max_us=2.5 * middle, first_run_us=3 * middle, init_us=800.0, runs=50,
        threads=1, delegate="xnnpack", cpu_percent=99.0, peak_memory_bytes=71_000_000,
        facts={"cpu": "Intel(R) Xeon(R) @ 2.20GHz", "cores": 2, "system": "Linux-6.1-x86_64", "governor": None,
               "load_average": 0.3},
    )  # fmt: skip
