"""A progress bar for a training, on terminals only."""

import contextlib

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def epoch_bar(label):
    """A callback that shows the epochs of one ``fit``; the bar goes with it, however it ends.

    Nothing is shown where output is no terminal.
    """
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
                   TimeRemainingColumn(), transient=True)
    with bar if bar.console.is_terminal else contextlib.nullcontext():
        yield _Epochs(bar, bar.add_task(label, total=None))


class _Epochs(keras.callbacks.Callback):
    def __init__(self, bar, task):
        super().__init__()
        self.bar, self.task = bar, task

    def on_epoch_end(self, epoch, logs=None):
        self.bar.update(self.task, completed=epoch + 1, total=self.params["epochs"])
