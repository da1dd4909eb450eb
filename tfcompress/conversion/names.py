"""Short tensor names: TFLiteConverter joins those of all the layers it fused, 3 to 8 % of a small file's bytes."""


def shorten(model):
    """One layer's name per tensor, in place: of "a/Relu;b/add_1;c/Conv2D" a result keeps the first, a constant
    the last; "_2" and so on where that is taken, in the whole file. Inputs and outputs keep theirs.
    """
    ends = [{*graph.inputs, *graph.outputs} for graph in model.subgraphs]
    taken = {graph.tensors[i].name for graph, fixed in zip(model.subgraphs, ends, strict=True) for i in fixed}
    for graph, fixed in zip(model.subgraphs, ends, strict=True):
        computed = {index for op in graph.operators for index in op.outputs}
        for index in sorted(set(range(len(graph.tensors))) - fixed, key=lambda i: (i not in computed, i)):
            tensor = graph.tensors[index]
            tensor.name = _free(tensor.name.split(b";")[0 if index in computed else -1], taken)
            taken.add(tensor.name)


def unique(model):
    """Every tensor of the file has a name of its own, in place: litert-quantizer asks for that.

    Of tensors with one name the input or output keeps it, else the first; the others get "_2" and so on.
    """
    taken, ends = set(), [{*graph.inputs, *graph.outputs} for graph in model.subgraphs]
    order = sorted(((graph, i) for graph, tensors in enumerate(model.subgraphs) for i in range(len(tensors.tensors))),
                   key=lambda place: place[1] not in ends[place[0]])
    for graph, index in order:
        tensor = model.subgraphs[graph].tensors[index]
        tensor.name = _free(tensor.name or b"tensor", taken)
        taken.add(tensor.name)


def _free(name, taken):
    number, free = 1, name
    while free in taken:
        number += 1
        free = name + b"_%d" % number
    return free
