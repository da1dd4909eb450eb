"""What goes into the model: --input_layer and its three companions."""

from emulated_phone.benchmark_model.log import Abort, Stop, error, warn

RANGES = {"int8": (-127, 127), "uint8": (0, 254), "int16": (-32767, 32767), "int32": (0, 99), "int64": (0, 99)}


class Layers:
    """The flags, taken apart and checked as the tool does before it looks at the model."""

    def __init__(self, flags):
        self.names = [name for name in flags["input_layer"].split(",") if name]
        shapes = [shape for shape in flags["input_layer_shape"].split(":") if shape]
        if len(shapes) != len(self.names):
            raise Stop(
                f"The number of items in --input_layer_shape ({flags['input_layer_shape']}, with {len(shapes)} items) "
                f"must match the number of items in --input_layer ({flags['input_layer']}, with {len(self.names)} "
                "items). For example --input_layer=input1,input2 --input_layer_shape=1,224,224,4:1,20"
            )
        self.shapes = [_numbers(shape) for shape in shapes]
        if any(size == -1 for shape in self.shapes for size in shape):
            raise Stop("Any unknown sizes in the shapes (-1's) must be replaced with the size you want to benchmark "
                       "with.")  # fmt: skip
        self.files, self.ranges = {}, {}
        for item in filter(None, flags["input_layer_value_files"].split(",")):
            parts = [part.replace("\0", ":") for part in item.replace("::", "\0").split(":")]
            if len(parts) != 2:
                if len(parts) > 2:
                    error(f"{item} contains more than one delimiter.")
                error(f"Wrong input value file item specified: {item}")
                raise Stop("1")
            self._check_name(parts[0], flags)
            self.files[parts[0]] = parts[1]
        for item in filter(None, flags["input_layer_value_range"].split(":")):
            name, *ends = item.split(",")
            if len(ends) != 2:
                raise Stop(f"Wrong input value range item specified: {item}")
            self._check_name(name, flags)
            self.ranges[name] = tuple(map(int, ends))

    def _check_name(self, name: str, flags) -> None:
        if name not in self.names:
            raise Abort(f"Cannot find the corresponding input_layer name({name}) in --input_layer as "
                        f"{flags['input_layer']}")  # fmt: skip

    def resize(self, interpreter) -> None:
        """Give the model's inputs the shapes asked for, in the model's own order."""
        details = interpreter.get_input_details()
        if self.names and len(details) != len(self.names):
            raise Abort(f"Inputs mismatch: Model inputs #:{len(self.names)} expected: {len(details)}")
        for name, detail in zip(self.names, details, strict=False):
            if detail["name"] != name:
                warn(f"Tensor # {detail['index']} is named {detail['name']} but flags call it {name}")
        for number, (shape, detail) in enumerate(zip(self.shapes, details, strict=False)):
            if len(shape) != len(detail["shape"]):
                raise Stop(f"Input tensor #{number} should have {len(detail['shape'])} dimensions!")
            interpreter.resize_tensor_input(detail["index"], shape)

    def fill(self, interpreter, random) -> None:
        """Write files or random numbers into the inputs."""
        names = self.names or [None] * len(interpreter.get_input_details())
        for name, detail in zip(names, interpreter.get_input_details(), strict=False):
            array = random.empty(detail["shape"], detail["dtype"])
            if name in self.files:
                array = random.from_file(self.files[name], array)
            else:
                array = random.numbers(array, self.ranges.get(name) or RANGES.get(array.dtype.name))
            interpreter.set_tensor(detail["index"], array)


class Arrays:
    """Numpy, behind three functions: it must not be imported before a model is loaded."""

    def __init__(self):
        import numpy

        self.numpy, self.generator = numpy, numpy.random.default_rng()

    def empty(self, shape, dtype):
        return self.numpy.empty(tuple(shape), dtype)

    def numbers(self, array, ends):
        if ends is None:
            return (self.generator.random(array.shape) - 0.5).astype(array.dtype)
        return self.generator.integers(ends[0], ends[1], array.shape, endpoint=True).astype(array.dtype)

    def from_file(self, path: str, array):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            raise Abort(f"Failed to read the input_layer_value_file:{path}") from None
        if len(content) != array.nbytes:
            raise Abort(f"The size of {path} is {len(content)} bytes. It should be {array.nbytes} bytes.")
        return self.numpy.frombuffer(content, array.dtype).reshape(array.shape)


def _numbers(shape: str) -> list[int]:
    """"8,32,32,3"; of what is no number the beginning counts, as in the tool: "8x32" is 8."""
    found = []
    for word in shape.split(","):
        size = 1
        while size < len(word) and word[size].isdigit():
            size += 1
        try:
            found.append(int(word[:size]))
        except ValueError:
            return []
    return found
