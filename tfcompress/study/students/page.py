"""One self-contained HTML page from the rows of a study of students."""

from pathlib import Path

import jinja2
import plotly.offline
from jinja2.utils import htmlsafe_json_dumps

from android_bench.store import write_file

from . import charts
from .config import TOLERANCE
from .summary import groups, name, separated, teacher_of, verdict

SAME = 1.05  # times that are nearer than this are called the same


def write_report(rows, path, config: dict, facts: dict) -> Path:
    """Write `path` (.html, opens without a network); returns it.

    Args:
        rows: of `rows.jsonl`; the page has a line for each block and scaling.
        config: what `StudentsConfig.remembered` gives.
        facts: of the data and of this computer.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("A report needs one row or more. Received none: run the study first.")
    found, teacher = groups(rows), teacher_of(rows)
    loader = jinja2.PackageLoader("tfcompress.study", ".")
    page = jinja2.Environment(loader=loader, autoescape=True).get_template("students/page.html.j2").render(
        title=config["title"],
        groups=found,
        teacher=teacher,
        headline=headline(found),
        sentences=sentences(found),
        times=times(found),
        off=[group for group in found if not group.row["within_budget"]],
        tolerance=TOLERANCE,
        columns=len({group.scaling for group in found}),
        name=name,
        charts={
            title: htmlsafe_json_dumps(chart)
            for title, chart in {
                "Accuracy with the teacher and without it": charts.accuracies(found, teacher[1].mean),
                "Gain from the teacher": charts.gains(found),
                "Accuracy against time": charts.times(found),
            }.items()
        },
        about=_about(rows, found, config, facts),
        plotly_js=plotly.offline.get_plotlyjs(),
    )
    path = Path(path)
    write_file(path, page.encode())
    return path


def headline(found) -> str:
    """The answer in a line: a winner is named only where intervals are apart."""
    blocks, pairs = _by_block(found), {}
    for block, mine in blocks.items():
        for more, less in separated(mine):
            pairs.setdefault((more.scaling, less.scaling), []).append(block)
    if not pairs:
        return f"Not separated at {_counted(min(group.seeds for group in found), 'seed')}"
    told = [f"{name(more)} gains more than {name(less)}" + (f" ({', '.join(kinds)} blocks)" if len(blocks) > 1 else "")
            for (more, less), kinds in pairs.items()]  # fmt: skip
    told = "; ".join(told)
    return told[0].upper() + told[1:]


def sentences(found) -> list[str]:
    """What was measured, a sentence for each block."""
    return [f"{block.capitalize()} blocks: {verdict(mine)}." for block, mine in _by_block(found).items()]


def times(found) -> list[str]:
    """How the times of the students of each block compare: the slowest and the fastest."""
    told = []
    for block, mine in _by_block(found).items():
        slow, fast = max(mine, key=lambda group: group.ratio), min(mine, key=lambda group: group.ratio)
        if len(mine) > 1 and slow.ratio < SAME * fast.ratio:
            told.append(f"{block.capitalize()} blocks: all take about {slow.latency_us:,.0f} µs.")
        elif len(mine) > 1:
            told.append(f"{block.capitalize()} blocks: {name(slow.scaling)} ({sum(slow.row['blocks'])} blocks) takes "
                        f"{slow.latency_us:,.0f} µs, {slow.ratio / fast.ratio:.1f} times as long as "
                        f"{name(fast.scaling)} ({sum(fast.row['blocks'])} blocks).")  # fmt: skip
    return told


def _by_block(found) -> dict:
    blocks = {}
    for group in found:
        blocks.setdefault(group.block, []).append(group)
    return blocks


def _about(rows, found, config, facts) -> dict:
    """What the page says under "What was run, and on what"."""
    recipe, taught, teacher = config["recipe"], config["taught"], rows[0]["teacher"]
    seeds = sorted({row["seed"] for row in rows})
    return {
        "Data": facts["data"],
        "Licence": facts["licence"],
        "Teacher": f"{config['teacher_block']} blocks, {_plus(config['stage_blocks'])} of "
        f"{_plus(config['stage_channels'])} channels, {teacher['params']:,} parameters; one for each seed",
        "Students": "max(1, round(depth × N)) blocks, width × C channels to the nearest 8, at least 8. Width-only "
        "keeps all blocks, depth-only all channels, balanced goes along depth = width². One budget for all kinds of "
        "blocks: a student of another kind than the teacher's may be deeper or wider than it (multipliers above 1)",
        "Training": f"{recipe['epochs']} epochs, learning rate {recipe['learning_rate']:g}, batches of "
        f"{recipe['batch_size']}; teacher and students, with it and without it, alike",
        "With the teacher": f"{taught['alpha']:g} of the loss from its outputs at temperature {taught['temperature']:g}"
        + (", the rest from the labels" if taught["alpha"] < 1 else ""),
        "Seeds": f"{', '.join(map(str, seeds))}; start weights and the order of the examples are the same with the "
        "teacher and without it",
        "Intervals": "95 %, Student's t over the seeds, at least one test sample wide; not corrected for the number of "
        f"comparisons. {rows[0]['test_samples']:,} test samples, the same for all seeds: an interval says nothing "
        "about other data",
        "Timing": "float32 file, one thread, teacher and students in short turns; the ratio to the teacher's time is "
        "the median over the seeds",
        "Machine": f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}",
        "Source": "Shin, Moon, Lee, Towards Understanding Architectural Effects on Knowledge Distillation, ICTC 2020",
    }  # fmt: skip


def _plus(numbers) -> str:
    return "+".join(map(str, numbers))


def _counted(count, word) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
