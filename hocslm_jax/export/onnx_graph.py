"""Converts a JAX function to an ONNX model, one operation at a time; constants are folded.

In: a function of one batch, and the shape of one example. Out: an `onnx.ModelProto` whose batch has
any size. `onnx_operators` converts the operations of this package's networks; any other is named in
the error.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.export.onnx_nodes import Graph, Tensor
from hocslm_jax.export.onnx_operators import OPERATORS
from hocslm_jax.models.formulations import ONNX, traced_for

OPSET = 18
IR_VERSION = 8  # readable by ONNX Runtime 1.14 and later
# Operations that only call another function, and the parameter that holds the function.
CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}


def to_onnx(function: Callable, example: tuple[int, ...], names: tuple[str, str]):
    """An `onnx.ModelProto` of `function`.

    Args:
        function: float32 [B, *example] -> float32 [B, …], traced with an unknown B.
        names: of the input and of the output.

    Raises:
        UserError: the function has an operation that cannot be converted (names it).
    """
    from onnx import TensorProto, checker, helper

    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *example), np.float32)
    with traced_for(ONNX):
        traced = jax.make_jaxpr(function)(x)
    graph = Graph(batch, names[0])
    (result,) = _convert(graph, traced.jaxpr, traced.consts, [Tensor(names[0], x.shape)])
    out = graph.full(result, traced.out_avals[0].shape)
    graph.nodes.append(helper.make_node("Identity", [graph.name(out)], [names[1]]))
    shape = ["batch", *traced.out_avals[0].shape[1:]]
    made = helper.make_graph(
        used_nodes(graph.nodes, names[1]),
        "network",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, ["batch", *example])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, shape)],
        [*graph.constants.values()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)
    keep_used_constants(model.graph)
    checker.check_model(model, full_check=True)
    return model


def used_nodes(nodes: Sequence, output: str) -> list:
    """The nodes that the output depends on, in order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def keep_used_constants(graph) -> None:
    """Removes constants that no node of an `onnx.GraphProto` reads."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _convert(graph: Graph, jaxpr, consts: Sequence, args: Sequence[Tensor]) -> list[Tensor]:
    """Adds the operations of a jaxpr to the graph; returns its outputs for these inputs."""
    known = dict(zip(jaxpr.constvars, map(_constant, consts), strict=True))
    known |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom) -> Tensor:
        return _constant(atom.val) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if (name := equation.primitive.name) in CALLS:
            inner = equation.params[CALLS[name]]
            closed = hasattr(inner, "consts")
            pair = (inner.jaxpr, inner.consts) if closed else (inner, ())
            outputs = _convert(graph, *pair, inputs)
        else:
            outputs = _operation(graph, equation, inputs)
        known |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _operation(graph: Graph, equation, inputs: list[Tensor]) -> list[Tensor]:
    shapes = [atom.aval.shape for atom in (*equation.invars, *equation.outvars)]
    concrete = all(isinstance(size, int) for shape in shapes for size in shape)
    if concrete and all(isinstance(one.value, np.ndarray) for one in inputs):
        pairs = zip(inputs, equation.invars, strict=True)
        arrays = [np.broadcast_to(one.value, atom.aval.shape) for one, atom in pairs]
        found = equation.primitive.bind(*arrays, **equation.params)
        return [
            _constant(one) for one in (found if equation.primitive.multiple_results else [found])
        ]
    operator = OPERATORS.get(equation.primitive.name)
    if operator is None:
        raise UserError(
            f"the model cannot be written as ONNX: there is no operator for JAX's "
            f"{equation.primitive.name!r}; use --format stablehlo, or add it to onnx_operators.py"
        )
    outputs = operator(graph, equation, *inputs)
    return outputs if isinstance(outputs, list) else [outputs]


def _constant(value) -> Tensor:
    value = np.asarray(value)
    return Tensor(value, value.shape)
