"""The ONNX counterpart of each JAX operation: `OPERATORS`, used by `onnx_graph`.

An operator gets the graph, JAX's equation and its inputs as `Tensor`s, adds nodes and returns the
output.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.export.onnx_nodes import Graph, Tensor, cut, same, transposed


def _spread(*shapes: Sequence) -> tuple:
    """The shape of an elementwise result; sizes of 1 are broadcast."""
    ranks = {len(shape) for shape in shapes if shape}
    shapes = [shape for shape in shapes if shape] or [()]
    assert len(ranks) <= 1
    return tuple(
        next((s for s in sizes if not (isinstance(s, int) and s == 1)), 1)
        for sizes in zip(*shapes, strict=True)
    )


def _elementwise(operator: str) -> Callable:
    def emit(graph: Graph, equation, *inputs: Tensor) -> Tensor:
        return graph.node(operator, *inputs, shape=_spread(*(one.shape for one in inputs)))

    return emit


def _unchanged(graph: Graph, equation, *inputs: Tensor):
    return list(inputs) if len(inputs) > 1 else inputs[0]


def _rsqrt(graph: Graph, equation, x: Tensor) -> Tensor:
    return graph.node("Reciprocal", graph.node("Sqrt", x, shape=x.shape), shape=x.shape)


def _integer_pow(graph: Graph, equation, x: Tensor) -> Tensor:
    power = np.array(equation.params["y"], np.float32)
    return graph.node("Pow", x, power, shape=x.shape)


def _square(graph: Graph, equation, x: Tensor) -> Tensor:
    return graph.node("Mul", x, x, shape=x.shape)


def _select(graph: Graph, equation, which: Tensor, no: Tensor, yes: Tensor) -> Tensor:
    return graph.node("Where", which, yes, no, shape=_spread(which.shape, no.shape, yes.shape))


def _cast(graph: Graph, equation, x: Tensor) -> Tensor:
    from onnx import helper

    if equation.invars[0].aval.dtype == (kind := equation.params["new_dtype"]):
        return x
    return graph.node("Cast", x, shape=x.shape, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))


def _reshape(graph: Graph, equation, x: Tensor) -> Tensor:
    return graph.reshaped(_whole(graph, equation, x), equation.outvars[0].aval.shape)


def _broadcast(graph: Graph, equation, x: Tensor) -> Tensor:
    """Only inserts axes of size 1: operators that need the full size broadcast it themselves."""
    shape = [1] * len(equation.params["shape"])
    for axis, size in zip(equation.params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return graph.reshaped(x, shape)


def _transpose(graph: Graph, equation, x: Tensor) -> Tensor:
    return transposed(graph, x, equation.params["permutation"])


def _whole(graph: Graph, equation, x: Tensor, place: int = 0) -> Tensor:
    return graph.full(x, equation.invars[place].aval.shape)


def _slice(graph: Graph, equation, x: Tensor) -> Tensor:
    x, known = _whole(graph, equation, x), equation.params
    steps = known["strides"] or (1,) * len(x.shape)
    limits = (known["start_indices"], known["limit_indices"], steps, range(len(x.shape)))
    return cut(graph, x, zip(*limits, strict=True), equation.outvars[0].aval.shape)


def _concatenate(graph: Graph, equation, *inputs: Tensor) -> Tensor:
    parts = [_whole(graph, equation, one, place) for place, one in enumerate(inputs)]
    shape = equation.outvars[0].aval.shape
    return graph.node("Concat", *parts, shape=shape, axis=equation.params["dimension"])


def _stack(graph: Graph, equation, *inputs: Tensor) -> Tensor:
    axis, shape = equation.params["axis"], equation.outvars[0].aval.shape
    single = [1 if place == axis else size for place, size in enumerate(shape)]
    parts = [
        graph.reshaped(_whole(graph, equation, one, place), single)
        for place, one in enumerate(inputs)
    ]
    return graph.node("Concat", *parts, shape=shape, axis=axis)


def _unstack(graph: Graph, equation, x: Tensor) -> list[Tensor]:
    axis, x = equation.params["axis"], _whole(graph, equation, x)
    single = [1 if place == axis else size for place, size in enumerate(x.shape)]
    rows = [cut(graph, x, [(at, at + 1, 1, axis)], single) for at in range(x.shape[axis])]
    pairs = zip(rows, equation.outvars, strict=True)
    return [graph.reshaped(row, out.aval.shape) for row, out in pairs]


def _pad(graph: Graph, equation, x: Tensor, fill: Tensor) -> Tensor:
    low, high, inner = zip(*equation.params["padding_config"], strict=True)
    if any(inner) or min(*low, *high) < 0:
        raise UserError(
            "the model cannot be written as ONNX: it pads between elements, or by a negative amount"
        )
    if not any((*low, *high)):
        return x
    shape = equation.outvars[0].aval.shape
    ends = np.array([*low, *high], np.int64)
    return graph.node("Pad", _whole(graph, equation, x), ends, fill, shape=shape)


def _split(graph: Graph, equation, x: Tensor) -> list[Tensor]:
    axis, x = equation.params["axis"], _whole(graph, equation, x)
    ends = np.cumsum(equation.params["sizes"])
    rows = zip(equation.params["sizes"], ends, equation.outvars, strict=True)
    return [cut(graph, x, [(end - size, end, 1, axis)], out.aval.shape) for size, end, out in rows]


def _reduce(operator: str) -> Callable:
    def emit(graph: Graph, equation, x: Tensor) -> Tensor:
        axes, shape = equation.params["axes"], equation.outvars[0].aval.shape
        x = _whole(graph, equation, x)
        return graph.node(operator, x, np.array(axes, np.int64), shape=shape, keepdims=0)

    return emit


def _gather(graph: Graph, equation, x: Tensor, places: Tensor) -> Tensor:
    """Slices at constant indices: one slice, or elements along one axis."""
    known, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, x = equation.outvars[0].aval.shape, _whole(graph, equation, x)
    if not isinstance(places.value, np.ndarray) or known.operand_batching_dims:
        raise UserError(
            "the model cannot be written as ONNX: it has indices that depend on the clip"
        )
    if places.value.ndim == 1:
        cuts = zip(known.start_index_map, places.value, strict=True)
        rows = [(int(at), int(at) + sizes[axis], 1, axis) for axis, at in cuts]
        return graph.reshaped(cut(graph, x, rows, sizes), shape)
    axis, *more = known.start_index_map
    others = [size for place, size in enumerate(x.shape) if place != axis]
    if more or known.collapsed_slice_dims != (axis,) or not same((*others, 1), _last(sizes, axis)):
        raise UserError("the model cannot be written as ONNX: it indexes several axes at once")
    index = places.value[..., 0].astype(np.int64)
    made = [*others[:axis], *index.shape, *others[axis:]]
    y = graph.node("Gather", x, index, shape=made, axis=axis)
    # JAX puts the axes of a slice at `offset_dims`; ONNX puts those of the index at `axis`.
    looked = [place for place in range(len(shape)) if place not in known.offset_dims]
    now = {place: axis + n for n, place in enumerate(looked)}
    rest = [place for place in range(len(made)) if place not in now.values()]
    now |= dict(zip(known.offset_dims, rest, strict=True))
    return transposed(graph, y, [now[place] for place in range(len(shape))])


def _last(sizes: Sequence, axis: int) -> tuple:
    """The sizes, with that of one axis moved to the end."""
    return (*sizes[:axis], *sizes[axis + 1 :], sizes[axis])


def _dot(graph: Graph, equation, left: Tensor, right: Tensor) -> Tensor:
    """A product over any axes as MatMul of [batch…, M, K] and [batch…, K, N]."""
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = _whole(graph, equation, left), _whole(graph, equation, right, 1)
    if len(left_sum) == 1 and not left_batch and _is_matrix(right):
        return _by_matrix(graph, left, left_sum[0], right, right_sum[0], -1)
    if len(left_sum) == 1 and not left_batch and _is_matrix(left):
        return _by_matrix(graph, right, right_sum[0], left, left_sum[0], 0)
    left_free = _others(left.shape, (*left_sum, *left_batch))
    right_free = _others(right.shape, (*right_sum, *right_batch))
    shape = equation.outvars[0].aval.shape
    a = transposed(graph, left, [*left_batch, *left_free, *left_sum])
    b = transposed(graph, right, [*right_batch, *right_sum, *right_free])
    groups, inner = len(left_batch), math.prod(left.shape[axis] for axis in left_sum)
    batch, rows = a.shape[:groups], math.prod(a.shape[groups : groups + len(left_free)])
    columns = math.prod(b.shape[groups + len(right_sum) :])
    a = graph.reshaped(a, [*batch, rows, inner])
    b = graph.reshaped(b, [*batch, inner, columns])
    return graph.reshaped(graph.node("MatMul", a, b, shape=[*batch, rows, columns]), shape)


def _is_matrix(tensor: Tensor) -> bool:
    return isinstance(tensor.value, np.ndarray) and tensor.value.ndim == 2


def _by_matrix(
    graph: Graph, x: Tensor, axis: int, matrix: Tensor, inner: int, place: int
) -> Tensor:
    """Contracts `axis` of x with the axis `inner` of a constant matrix.

    The product has the matrix's other axis in the place of `axis`. A transposition moves it to
    `place`, as in JAX; `transposed` removes it if the next operation undoes it.
    """
    columns = matrix.shape[1 - inner]
    shape = [*x.shape[:axis], columns, *x.shape[axis + 1 :]]
    if axis == len(x.shape) - 1:
        y = graph.node("MatMul", x, transposed(graph, matrix, [inner, 1 - inner]), shape=shape)
    else:
        after = math.prod(x.shape[axis + 1 :])
        flat = graph.reshaped(x, [*x.shape[: axis + 1], after])
        matrix = transposed(graph, matrix, [1 - inner, inner])
        y = graph.node("MatMul", matrix, flat, shape=[*shape[: axis + 1], after])
        y = graph.reshaped(y, shape)
    others = _others(shape, (axis,))
    return transposed(graph, y, [*others, axis] if place else [axis, *others])


def _others(shape: Sequence, axes: Sequence[int]) -> list[int]:
    return [axis for axis in range(len(shape)) if axis not in axes]


OPERATORS: dict[str, Callable] = {
    "abs": _elementwise("Abs"),
    "add": _elementwise("Add"),
    "add_any": _elementwise("Add"),
    "and": _elementwise("And"),
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "convert_element_type": _cast,
    "copy": _unchanged,
    "copy_p": _unchanged,
    "div": _elementwise("Div"),
    "dot_general": _dot,
    "eq": _elementwise("Equal"),
    "erf": _elementwise("Erf"),
    "exp": _elementwise("Exp"),
    "expand_dims": _reshape,
    "gather": _gather,
    "ge": _elementwise("GreaterOrEqual"),
    "gt": _elementwise("Greater"),
    "integer_pow": _integer_pow,
    "le": _elementwise("LessOrEqual"),
    "log": _elementwise("Log"),
    "logistic": _elementwise("Sigmoid"),
    "lt": _elementwise("Less"),
    "max": _elementwise("Max"),
    "min": _elementwise("Min"),
    "mul": _elementwise("Mul"),
    "neg": _elementwise("Neg"),
    "not": _elementwise("Not"),
    "optimization_barrier": _unchanged,
    "or": _elementwise("Or"),
    "pad": _pad,
    "pow": _elementwise("Pow"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_precision": _unchanged,
    "reduce_sum": _reduce("ReduceSum"),
    "reshape": _reshape,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "sharding_constraint": _unchanged,
    "slice": _slice,
    "split": _split,
    "sqrt": _elementwise("Sqrt"),
    "square": _square,
    "squeeze": _reshape,
    "stack": _stack,
    "unstack": _unstack,
    "stop_gradient": _unchanged,
    "sub": _elementwise("Sub"),
    "tanh": _elementwise("Tanh"),
    "transpose": _transpose,
}
