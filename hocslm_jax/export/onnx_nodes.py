"""The nodes of an ONNX model under construction, and the tensors between them.

A `Tensor` may have size 1 along an axis where JAX has a larger size: it is then broadcast. ONNX's
arithmetic broadcasts by itself; for other operators `Graph.full` does it.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from hocslm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A constant array or the name of a computed one, and its shape."""

    value: np.ndarray | str
    shape: tuple


@dataclasses.dataclass
class Graph:
    """The nodes and constants of an ONNX model as it is built.

    Attributes:
      batch: the unknown size that shapes are multiples of.
      source: an input of the model whose first size it is.
      moved: input and permutation of each transposition, by the name of its result.
    """

    batch: object
    source: str
    nodes: list = dataclasses.field(default_factory=list)
    constants: dict = dataclasses.field(default_factory=dict)
    moved: dict = dataclasses.field(default_factory=dict)

    def node(self, operator: str, *inputs: Tensor | np.ndarray, shape: Sequence, **attributes):
        """Adds a node; returns its output."""
        from onnx import helper

        out = f"v{len(self.nodes)}"
        names = [self.name(one) for one in inputs]
        self.nodes.append(helper.make_node(operator, names, [out], **attributes))
        return Tensor(out, tuple(shape))

    def name(self, tensor: Tensor | np.ndarray) -> str:
        """Name of a tensor in the model; equal constants are stored once."""
        from onnx import numpy_helper

        value = tensor.value if isinstance(tensor, Tensor) else tensor
        if isinstance(value, str):
            return value
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.constants:
            name = f"c{len(self.constants)}"
            self.constants[key] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return self.constants[key].name

    def reshaped(self, tensor: Tensor, shape: Sequence) -> Tensor:
        """Reshapes a tensor; one size of the new shape may be unknown."""
        shape = tuple(shape)
        if same(tensor.shape, shape):
            return tensor
        if isinstance(tensor.value, np.ndarray):
            return Tensor(tensor.value.reshape(shape), shape)
        unknown = [size for size in shape if not isinstance(size, int)]
        if len(unknown) > 1:
            raise UserError(f"the model cannot be written as ONNX: shape {shape}")
        sizes = np.array([s if isinstance(s, int) else -1 for s in shape], np.int64)
        return self.node("Reshape", tensor, sizes, shape=shape)

    def full(self, tensor: Tensor, shape: Sequence) -> Tensor:
        """The tensor, broadcast to the shape."""
        if same(tensor.shape, shape):
            return tensor
        if all(isinstance(size, int) for size in shape):
            if isinstance(tensor.value, np.ndarray):
                return Tensor(np.broadcast_to(tensor.value, shape), tuple(shape))
            sizes = Tensor(np.array(shape, np.int64), (len(shape),))
        else:
            sizes = self._sizes(shape)
        return self.node("Expand", tensor, sizes, shape=shape)

    def _sizes(self, shape: Sequence) -> Tensor:
        """A shape with multiples of the batch, computed in the model."""
        whole = self.node("Shape", Tensor(self.source, ()), shape=(1,), start=0, end=1)
        parts = []
        for size in shape:
            if isinstance(size, int):
                parts.append(np.array([size], np.int64))
                continue
            times = size // self.batch
            if not isinstance(times, int) or not same((times * self.batch,), (size,)):
                raise UserError(f"the model cannot be written as ONNX: size {size}")
            parts.append(self.node("Mul", whole, np.array([times], np.int64), shape=(1,)))
        return self.node("Concat", *parts, shape=(len(shape),), axis=0)


def same(one: Sequence, other: Sequence) -> bool:
    """Whether two shapes are equal, unknown sizes included."""
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))


def transposed(graph: Graph, x: Tensor, order: Sequence[int]) -> Tensor:
    """Permutes the axes; two transpositions in a row become one, or none."""
    if isinstance(x.value, str) and x.value in graph.moved:
        x, before = graph.moved[x.value]
        order = [before[axis] for axis in order]
    order, shape = list(order), [x.shape[axis] for axis in order]
    if order == sorted(order):
        return x
    if isinstance(x.value, np.ndarray):
        return Tensor(x.value.transpose(order), tuple(shape))
    moving = [axis for axis in order if not (isinstance(x.shape[axis], int) and x.shape[axis] == 1)]
    if moving == sorted(moving):  # only axes of size 1 move
        return graph.reshaped(x, shape)
    y = graph.node("Transpose", x, shape=shape, perm=order)
    graph.moved[y.value] = (x, order)
    return y


def cut(graph: Graph, x: Tensor, rows: Iterable[tuple], shape: Sequence) -> Tensor:
    """Slices a tensor; each row is (start, stop, step, axis)."""
    rows = [row for row in rows if not (row[0] == 0 and row[2] == 1 and row[1] == x.shape[row[3]])]
    if not rows:
        return x
    starts, stops, steps, axes = (np.array(part, np.int64) for part in zip(*rows, strict=True))
    return graph.node("Slice", x, starts, stops, axes, steps, shape=shape)
