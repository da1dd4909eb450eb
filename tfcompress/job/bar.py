"""A progress bar for a training, on terminals only."""

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class EpochBar(keras.callbacks.Callback):
    """Epochs of one ``fit``; the bar goes when it is done. Nothing is shown where output is no terminal."""

    def __init__(self, label):
        super().__init__()
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
                            TimeRemainingColumn(), transient=True)
        self.bar.disable = not self.bar.console.is_terminal
        self.label, self.task = label, None

    def on_train_begin(self, logs=None):
        self.bar.start()
        self.task = self.bar.add_task(self.label, total=self.params["epochs"])

    def on_epoch_end(self, epoch, logs=None):
        self.bar.update(self.task, completed=epoch + 1)

    def on_train_end(self, logs=None):
        self.bar.stop()
