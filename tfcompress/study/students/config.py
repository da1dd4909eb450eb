"""What a study of students is, as data; the ones that come with the toolkit; which students one of them has."""

import dataclasses
from dataclasses import dataclass, field

from tfcompress.distillation.student import LINES, scaled, solve
from tfcompress.recipes import RECIPES, Recipe
from tfcompress.stages import BLOCKS, parameters

from ..grid import Distill

TOLERANCE = 0.05  # of the budget: what is farther off is said to be so
FAR = 0.5  # of the budget: what is farther off is refused
SELECT = ("scalings", "blocks", "seeds")  # which rows there are, not what is in them


@dataclass(frozen=True)
class StudentsConfig:
    """One data set, one teacher, students by scaling and block. `dataclasses.replace(PRESETS["digits"], budget=0.2)`.

    name, title: the folder's and the report's.
    dataset, dataset_options, examples: as in `StudyConfig`.
    recipe: how teacher and students are trained, with the teacher and without it.
    taught: how a student learns from the teacher.
    stage_blocks, stage_channels, teacher_block: the teacher, as `stages.staged` takes it; its depth and width are 1.
    budget: parameters of a student; below 1 a share of the teacher's.
    scalings: of "width" (all blocks, fewer channels), "depth" (fewer blocks, all channels), "balanced".
    blocks: of "basic", "bottleneck", "inverted"; the teacher stays the same.
    seeds: each trains its own teacher and all students; intervals are over them.
    """

    name: str
    title: str
    dataset: str
    recipe: Recipe
    taught: Distill = Distill()
    stage_blocks: tuple[int, ...] = (2, 2, 4, 10)
    stage_channels: tuple[int, ...] = (16, 24, 40, 80)
    teacher_block: str = "basic"
    budget: float = 0.1
    scalings: tuple[str, ...] = tuple(LINES)
    blocks: tuple[str, ...] = BLOCKS
    seeds: tuple[int, ...] = (0, 1, 2)
    examples: int | None = None
    dataset_options: dict = field(default_factory=dict)

    def __post_init__(self):
        for what, values, known in (("scalings", self.scalings, LINES), ("blocks", self.blocks, BLOCKS)):
            if not values or set(values) - set(known) or len(set(values)) < len(values):
                raise ValueError(f"Expected {what} of {', '.join(known)}, each once. Received: {', '.join(values)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"Expected seeds of 0 or above, each once. Received: {self.seeds}.")
        if not self.budget > 0:
            raise ValueError(f"A budget is positive: parameters, or below 1 a share of the teacher's. Received: "
                             f"{self.budget}.")  # fmt: skip

    def remembered(self) -> dict:
        """What rows of one folder share. Scalings, blocks and seeds may grow: the same folder takes more rows."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in SELECT}

    def amount(self, input_shape, classes, block, depth=1.0, width=1.0) -> int:
        """Parameters of a net of this family."""
        return parameters(input_shape, classes, blocks=self.stage_blocks, channels=self.stage_channels, block=block,
                          depth=depth, width=width)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One student: how it is built, and how near it comes to the budget. `blocks` and `channels`: of its stages."""

    block: str
    scaling: str
    depth: float
    width: float
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    params: int
    budget: int

    @property
    def within(self) -> bool:
        return abs(self.params - self.budget) <= TOLERANCE * self.budget


def plans(config: StudentsConfig, input_shape, classes) -> list[Plan]:
    """The students of a study, by block and scaling: within 5 % of the budget, else the nearest.

    All are held to one budget, a share of the teacher's parameters, whatever block they are made of: depth and width
    of another block than the teacher's may be above 1.

    Raises:
        ValueError: a student whose nearest size is more than half the budget away.

    >>> for plan in plans(PRESETS["digits"], (28, 28, 1), 10)[:3]:
    ...     print(plan.scaling, plan.blocks, plan.channels, plan.params, plan.budget)
    width (2, 2, 4, 10) (8, 8, 16, 24) 127650 127532
    depth (1, 1, 1, 1) (16, 24, 40, 80) 130106 127532
    balanced (1, 1, 1, 3) (8, 16, 24, 48) 131442 127532
    """
    teacher = config.amount(input_shape, classes, config.teacher_block)
    budget = config.budget * teacher if config.budget < 1 else config.budget
    return [_plan(config, input_shape, classes, block, scaling, max(budget, 1.0), teacher)
            for block in config.blocks for scaling in config.scalings]  # fmt: skip


def _plan(config, input_shape, classes, block, scaling, budget, teacher) -> Plan:
    def nearest(tolerance):
        """By formula: no net is built."""
        return solve(lambda depth, width: (depth, width), budget, scaling=scaling, tolerance=tolerance,
                     measure=lambda pair: config.amount(input_shape, classes, block, *pair))  # fmt: skip

    try:
        found = nearest(TOLERANCE)
    except ValueError:
        found = nearest(None)
    if abs(found.amount - budget) > FAR * budget:
        raise ValueError(
            f"No student of {block} blocks scaled by {scaling} is near the budget. Received: budget={config.budget:g}, "
            f"{budget:,.0f} parameters (the teacher has {teacher:,}). Nearest: {found.amount:,}, which is "
            f"{found.amount / teacher:.3f} of the teacher. Ask for another budget, or leave this one out."
        )
    counts, channels = scaled(config.stage_blocks, config.stage_channels, found.depth, found.width)
    return Plan(block, scaling, found.depth, found.width, counts, channels, found.amount, round(budget))


_DIGITS = StudentsConfig(
    name="digits",
    title="Handwritten digits: students by depth and by width",
    dataset="digits",
    recipe=RECIPES["digits"],
)
PRESETS = {
    "digits": _DIGITS,
    "ecg": StudentsConfig(
        name="ecg",
        title="Heartbeats (MIT-BIH), split by patient: students by depth and by width",
        dataset="ecg",
        dataset_options={"download": True},
        recipe=RECIPES["ecg_resnet"],
        taught=Distill(temperature=1.0, alpha=1.0),
    ),
    "tiny": dataclasses.replace(
        _DIGITS,
        name="tiny",
        title="Tiny study of students, to try the machinery: its accuracies mean nothing",
        recipe=Recipe(epochs=1, batch_size=25, learning_rate=5e-3),
        stage_blocks=(2,),
        stage_channels=(24,),
        budget=0.5,
        scalings=("width", "depth"),
        blocks=("basic",),
        seeds=(0,),
        examples=150,
    ),
}


def preset(name_or_config) -> StudentsConfig:
    """The preset called so, or the configuration itself.

    >>> preset("cats")
    Traceback (most recent call last):
    ...
    ValueError: Unknown preset 'cats'. Known: digits, ecg, tiny.
    """
    if isinstance(name_or_config, StudentsConfig):
        return name_or_config
    if name_or_config not in PRESETS:
        raise ValueError(f"Unknown preset {name_or_config!r}. Known: {', '.join(PRESETS)}.")
    return PRESETS[name_or_config]
