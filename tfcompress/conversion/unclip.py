"""Takes back what TFLiteConverter adds to a fused LSTM: a limit of 10 on the cell state, which Keras does not have."""


def remove_cell_clip(model):
    """`cell_clip` 0 (no limit), in place, in every fused LSTM.

    TensorFlow 2.21 fuses a tf_keras LSTM into UNIDIRECTIONAL_SEQUENCE_LSTM with `cell_clip` 10 whatever the layer says.
    A net whose cells grow beyond 10 then gives other outputs in float32 already: PyPI's `seeker` (LSTM over 1000 steps)
    was off by 0.044 in its probabilities, and by 8e-7 without the limit.
    """
    for graph in model.subgraphs:
        for op in graph.operators:
            if getattr(op.builtinOptions, "cellClip", 0):
                op.builtinOptions.cellClip = 0.0
