"""Graph aggregation with a separate topology for every sample and channel.

`aggregate` is one fused loop over the senders on CPUs and TPUs, and one batched matrix product on
GPUs, depending on the backend that it is compiled for. The gradients of both have the same form.
"""

import functools

import jax
import jax.numpy as jnp

from hocslm_jax.models.formulations import by_platform


def aggregate(topologies: list[jax.Array], values: list[jax.Array]) -> jax.Array:
    """z[b,t,u,o] = sum over subsets s and senders v of topologies[s][b,u,v,o] * values[s][b,t,v,o].

    Args:
      topologies: one [B, V, V, O] per subset; axis 1 receives, axis 2 sends.
      values: one [B, T, V, O] per subset.

    Returns:
      [B, T, V, O] in the type of the values.
    """
    return _aggregate([topology.astype(values[0].dtype) for topology in topologies], values)


@jax.custom_vjp
def _aggregate(topologies, values):
    formulations = {"cpu": _loops, "tpu": _loops, "onnx": _by_channel, "default": _products}
    return by_platform(topologies, values, **formulations)


def _aggregate_forward(topologies, values):
    return _aggregate(topologies, values), (topologies, values)


def _aggregate_backward(saved, grad):
    formulations = {"cpu": _loops_backward, "tpu": _loops_backward, "default": _products_backward}
    return by_platform(*saved, grad, **formulations)


_aggregate.defvjp(_aggregate_forward, _aggregate_backward)


def _loops(topologies, values):
    """One fused loop, three times as fast on XLA:CPU as the matrix product.

    Matrices this small use a TPU's matrix unit poorly, and need copies to tile over the joints; the
    loop runs on the vector unit, tiled over samples and channels.
    """
    return _sum(
        (a[:, None, :, v], x[:, :, v, None])  # [B, 1, V, O] * [B, T, 1, O]
        for a, x in zip(topologies, values, strict=True)
        for v in range(x.shape[2])
    )


def _loops_backward(topologies, values, grad):
    """grad [B, T, V, O] -> S x [B, V, V, O] and S x [B, T, V, O]."""
    frames, joints = range(grad.shape[1]), range(grad.shape[2])
    grad_values = [_sum((a[:, None, u], grad[:, :, u, None]) for u in joints) for a in topologies]
    # The sum over t is unrolled: in a reduction XLA:CPU would store all B * T * V * V * O products.
    grad_topologies = [_sum((grad[:, t, :, None], x[:, t, None]) for t in frames) for x in values]
    return grad_topologies, grad_values


def _sum(pairs):
    """The sum of the products of pairs, accumulated in float32 and returned in their type."""
    pairs = list(pairs)
    products = (a.astype(jnp.float32) * b.astype(jnp.float32) for a, b in pairs)
    return functools.reduce(jnp.add, products).astype(pairs[0][0].dtype)


def _products(topologies, values):
    """One matrix product for each sample and channel.

    Its operands are transposed once, senders last, for this product and both of its gradients.
    """
    a, x = _matrices(jnp.stack(topologies, axis=3)), _matrices(jnp.stack(values, axis=3))
    z = jax.lax.dot_general(x, a, (((2,), (2,)), ((0,), (0,))))  # [B * O, T, U]
    batch, frames, joints, channels = values[0].shape
    return _settled(z.reshape(batch, channels, frames, joints).transpose(0, 2, 3, 1))


def _by_channel(topologies, values):
    """A matrix product for each sample, channel and subset, for ONNX.

    Operands are produced in the order of this product, since ONNX Runtime transposes slowly.
    """
    pairs = zip(map(channels_first, values), map(channels_first, topologies), strict=True)
    z = sum(x @ a.swapaxes(2, 3) for x, a in pairs)  # [B, O, T, V] @ [B, O, V, U]
    return channels_last(z)


def channels_first(x: jax.Array) -> jax.Array:
    """[B, T, V, C] -> [B, C, T, V]."""
    return x.transpose(0, 3, 1, 2)


def channels_last(x: jax.Array) -> jax.Array:
    """[B, C, T, V] -> [B, T, V, C]."""
    return x.transpose(0, 2, 3, 1)


def _products_backward(topologies, values, grad):
    """grad [B, T, V, O] -> S x [B, V, V, O] and S x [B, T, V, O]."""
    stacked, values = jnp.stack(topologies, axis=3), jnp.stack(values, axis=3)  # [B, U, V, S, O]
    a, x, g = _matrices(stacked), _matrices(values), _matrices(_settled(grad)[:, :, :, None])
    grad_values = jax.lax.dot_general(g, a, (((2,), (1,)), ((0,), (0,))))  # [B * O, T, S * V]
    grad_topologies = jax.lax.dot_general(g, x, (((1,), (1,)), ((0,), (0,))))  # [B * O, U, S * V]
    return (
        subsets_of(_from_matrices(grad_topologies, stacked.shape)),
        subsets_of(_from_matrices(grad_values, values.shape)),
    )


def subsets_of(x: jax.Array) -> list[jax.Array]:
    """[B, T, V, S, O] -> S x [B, T, V, O]."""
    return [x[:, :, :, s] for s in range(x.shape[3])]


def _matrices(x: jax.Array) -> jax.Array:
    """[B, T, V, S, O] -> [B * O, T, S * V]."""
    batch, frames, joints, subsets, channels = x.shape
    return x.transpose(0, 4, 1, 3, 2).reshape(batch * channels, frames, subsets * joints)


def _from_matrices(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_matrices`, to the shape [B, T, V, S, O]."""
    batch, frames, joints, subsets, channels = shape
    return x.reshape(batch, channels, frames, subsets, joints).transpose(0, 2, 4, 3, 1)


def _settled(x: jax.Array) -> jax.Array:
    """x [..., C], stored in the order of its axes; flattening forces XLA to use that order."""
    return jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1])).reshape(x.shape)
