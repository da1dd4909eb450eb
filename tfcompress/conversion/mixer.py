"""The parent's end of mixed files: which precisions the layers of one model can have, and what each does and weighs."""

from rich.progress import track

from tfcompress.conversion.batches import save_batches
from tfcompress.conversion.worker import ConversionError, worker

LADDER = ("int2", "int4", "int8", "int16x8", "float16", "float32")  # of rising accuracy
BITS = {"int2": 2, "int4": 4, "int8": 8, "int16x8": 8, "float16": 16, "float32": 32}  # of a weight as stored
FEW = ("int2", "int4")  # precisions so coarse that clipping the largest weights may pay


class Mixer:
    """Files of one model with a precision a layer.

    Args:
        pipeline: a ``Pipeline`` whose data is bound.
        static: activations in int8 by calibrated ranges; False: layers of integers quantize their input at run time.
        precisions: names of ``LADDER`` to choose from.

    Attributes:
        layers: dicts, see ``conversion.mix.layers``.
        offered: a tuple of precisions a layer, in the order of ``LADDER``; never empty.
        refused: ``{(operation, precision): reason}`` of what does not run.
    """

    def __init__(self, pipeline, static, precisions):
        self.pipeline, self.file = pipeline, str(pipeline.float_file)
        self.ranges = str(pipeline.ranges()) if static else None
        self.layers = worker.run("weight_layers", pipeline.folder, float_file=self.file)
        self._fed = str(pipeline.folder / "mixer.npz")
        save_batches(self._fed, pipeline.batches)
        self.refused, self.offered, self._reasons = {}, [], {}
        for layer in track(self.layers, "finding what runs", transient=True):
            runs = self._running(layer, [name for name in LADDER if name in precisions])
            self.offered.append(runs or ("float32",))
        self.base = [self._base(runs) for runs in self.offered]

    def _running(self, layer, precisions):
        """The precisions that run, found out by the first layer of its operation and kind."""
        key = layer["op"], layer["kind"], layer["loop"]
        new = [name for name in precisions if name != "float32" and (*key, name) not in self._reasons]
        self._reasons.update(zip([(*key, name) for name in new], self._tried(layer, new), strict=True))
        refused = {name: self._reasons[*key, name] for name in precisions if self._reasons.get((*key, name))}
        self.refused |= {(layer["op"], name): why for name, why in refused.items()}
        return tuple(name for name in precisions if name not in refused)

    def _tried(self, layer, precisions):
        """Why each of the precisions does not run, or ""."""
        if layer["kind"] is None:
            return ["litert-quantizer does not know this operation"] * len(precisions)
        if "int16x8" in precisions and (self.ranges is None or layer["loop"]):
            at, others = precisions.index("int16x8"), [name for name in precisions if name != "int16x8"]
            reasons = self._tried(layer, others)
            return [*reasons[:at], "16-bit activations need a calibrated range", *reasons[at:]]
        try:
            return worker.run("try_precisions", self.pipeline.folder, float_file=self.file, layer=layer,
                              precisions=precisions, ranges=self.ranges, batches=self._fed) if precisions else []
        except ConversionError as error:  # the run time ended the process
            if len(precisions) == 1:
                return [str(error).splitlines()[0]]
            return [self._tried(layer, [name])[0] for name in precisions]

    def _base(self, runs):
        """What bytes and times of the others are compared with: int8 where activations are, else float."""
        return "int8" if self.ranges and "int8" in runs else runs[-1]

    def changed(self, number, precision):
        """The base with one layer in another precision."""
        return [precision if at == number else name for at, name in enumerate(self.base)]

    def write(self, chosen, path):
        """The file of an assignment, a precision a layer."""
        self._write([[self._picked(chosen), str(path)]], False)
        return path

    def write_alone(self, chosen, folder):
        """``{number of a layer: path}`` of otherwise float files, for the layers that are not float."""
        paths = {at: str(folder / f"alone_{at}.tflite") for at, name in enumerate(chosen) if name != "float32"}
        self._write([[[[self.layers[at], chosen[at]]], path] for at, path in paths.items()], True)
        return paths

    def _write(self, files, alone):
        worker.run("mix_files", self.pipeline.folder, float_file=self.file, files=files, ranges=self.ranges,
                   alone=alone)

    def check_runs(self, path):
        """Run a file once in the child: a ConversionError where it ends the process."""
        worker.run("run", self.pipeline.folder, file=str(path), batches=self._fed, output=str(
            self.pipeline.folder / "runs.npz"), runtime="ai_edge_litert", delegate=True, limit=0.0)

    def alone(self, number):
        """``[(damage, bytes)]`` of one layer in each of its precisions: damage in an otherwise float file, bytes in the
        base; a precision that ends the process with this layer has infinite damage. Where clipping its largest weights
        does less damage, they are clipped from now on."""
        runs, layer = self.offered[number], self.layers[number]
        few = [name for name in runs if name in FEW]
        tried = [(layer, name) for name in runs] + [(layer | {"clipped": [name]}, name) for name in few]
        found = self._judged([[[own, name]] if layer["kind"] else [] for own, name in tried], True, True)
        damages, clipped = dict(zip(runs, found, strict=False)), dict(zip(few, found[len(runs):], strict=True))
        layer["clipped"] = [name for name in few if clipped[name] < damages[name]]
        damages |= {name: clipped[name] for name in layer["clipped"]}
        sizes = self.sizes([self.changed(number, name) for name in runs])
        return [(damages[name][0], size) for name, size in zip(runs, sizes, strict=True)]

    def judge(self, assignments):
        """Damage of whole assignments."""
        return [damage for damage, _ in self._judged([self._picked(chosen) for chosen in assignments], True, False)]

    def sizes(self, assignments):
        """Bytes of the files of whole assignments."""
        return [size for _, size in self._judged([self._picked(chosen) for chosen in assignments], False, False)]

    def _picked(self, chosen):
        return [[layer, name] for layer, name in zip(self.layers, chosen, strict=True) if layer["kind"]]

    def _judged(self, assignments, run, alone):
        batches = self._fed if run else None
        options = dict(float_file=self.file, batches=batches, ranges=self.ranges, alone=alone)
        try:
            return worker.run("judge", self.pipeline.folder, assignments=assignments, **options)
        except ConversionError:
            if len(assignments) == 1:
                return [[float("inf"), 0]]
            return [self._judged([one], run, alone)[0] for one in assignments]
