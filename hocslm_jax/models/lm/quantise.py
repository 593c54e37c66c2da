"""Frozen matrices in 8 or 4 bits: quantisation to codes and scales, and products with them.

In: the kernels of the layers. Out: a dict of arrays in the place of each, and the product of rows
with it. A product dequantises one matrix at a time, in the forward pass and again in the backward
pass, which has no gradient for the codes.

"int8"  number = code * scale, with a scale for each output channel.
"int4"  number = (code * group_scale + group_offset) * scale, with a scale, a power of 2, for each
        output channel, and the other two for each group of 32 inputs of it. A byte holds
        two codes: 5 bits per number. Numbers of a GGUF file in Q4_1 are kept exactly.

Embeddings and the output matrix are not quantised: the logits need all of them at once.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm.config import LMConfig
from hocslm_jax.models.lm.tensor_table import parameters

KINDS = ("int8", "int4")
GROUP, LEAST_GROUP = 32, 8  # inputs per group in int4; smaller groups would save little
RANGES = (1.0, 0.9, 0.8)  # tried shares of a group's range, against outliers

Stored = dict[str, jax.Array]


def quantised(config: LMConfig) -> dict[str, int]:
    """Number of (leading) input axes of each quantised kernel, by path."""
    return {
        path: len(parameter.disk[1])
        for path, parameter in parameters(config).items()
        if parameter.stacked and path.endswith("/kernel")
    }


def check_sizes(config: LMConfig, kind: str) -> None:
    """Raises UserError for an unknown kind, or a size whose groups save no memory with "int4"."""
    if kind not in ("", *KINDS):
        raise UserError(f"lm.weights is {kind!r}: use one of {', '.join(KINDS)}, or leave it empty")
    names = ("hidden_size", "intermediate_size", "head_dim")
    odd = [name for name in names if getattr(config, name) % LEAST_GROUP]
    if kind == "int4" and odd:
        raise UserError(
            f"lm.weights=int4 needs multiples of {LEAST_GROUP}, but this model's {odd[0]} is "
            f"{getattr(config, odd[0])}: use lm.weights=int8"
        )


def quantise_params(params: dict, config: LMConfig, kind: str) -> dict:
    """Quantises the parameters of a `DecoderLM`."""
    check_sizes(config, kind)
    flat = flatten_dict(params, sep="/")
    for path, inputs in quantised(config).items():
        one = functools.partial(quantise, kind=kind, inputs=inputs)
        stored = jax.vmap(one)(flat.pop(path))
        flat |= {f"{path.removesuffix('kernel')}{name}": leaf for name, leaf in stored.items()}
    return unflatten_dict(flat, sep="/")


@functools.partial(jax.jit, static_argnames=("kind", "inputs"))
def quantise(kernel: jax.Array, kind: str, inputs: int = 1) -> Stored:
    """Quantises one kernel [in…, out…] with that number of input axes.

    Returns:
        "kernel" (int8 of the same shape, or uint8 with half the last input axis) and "scale"
        (float32 [out…]); for "int4" also "group_scale" and "group_offset", float16, with an axis of
        groups in the place of the inputs.
    """
    before, last, outputs = _split(kernel.shape, inputs)
    numbers = kernel.astype(jnp.float32).reshape(math.prod(before), last, -1)  # [A, I, O]
    largest = jnp.max(jnp.abs(numbers), axis=(0, 1))  # [O]
    if kind == "int8":
        scale = jnp.where(largest > 0, largest / 127, 1)
        codes = jnp.round(numbers / scale).astype(jnp.int8)
        return {"kernel": codes.reshape(kernel.shape), "scale": scale.reshape(outputs)}
    # A power of 2 is exact; float16 can then represent the rest, whatever the scale of a model.
    scale = jnp.exp2(jnp.ceil(jnp.log2(jnp.where(largest > 0, largest, 1))))
    size = math.gcd(GROUP, last)
    groups = (numbers / scale).reshape(len(numbers), last // size, size, -1)  # [A, G, S, O]
    codes, step, offset = _fit(groups)
    first, second = jnp.split(codes.astype(jnp.uint8), 2, axis=2)  # [A, G, S / 2, O]
    per_group = (*before, last // size, *outputs)
    return {
        "kernel": (first | second << 4).reshape(*before, last // 2, *outputs),
        "scale": scale.reshape(outputs),
        "group_scale": step.reshape(per_group),
        "group_offset": offset.reshape(per_group),
    }


def dequantise(stored: Stored, inputs: int, dtype) -> tuple[jax.Array, jax.Array]:
    """(matrix [in, out] of this type, scale float32 [out]), whose product is the kernel."""
    codes, scale = stored["kernel"], stored["scale"].reshape(-1)
    if "group_scale" not in stored:
        return codes.reshape(-1, len(scale)).astype(dtype), scale
    bytes_in, count = (stored[name].shape[inputs - 1] for name in ("kernel", "group_scale"))
    codes = codes.reshape(-1, count, 1, bytes_in // count, len(scale))  # [A, G, 1, S / 2, O]
    halves = jnp.concatenate([codes & 15, codes >> 4], axis=2)
    shape = (-1, count, 1, 1, len(scale))
    step, offset = (stored[name].astype(jnp.float32) for name in ("group_scale", "group_offset"))
    numbers = halves.astype(jnp.float32) * step.reshape(shape) + offset.reshape(shape)
    return numbers.astype(dtype).reshape(-1, len(scale)), scale


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(inputs: int, rows: jax.Array, stored: Stored) -> jax.Array:
    """Rows [R, in] times a quantised kernel: [R, out] of the rows' type.

    Its custom derivative keeps codes for the backward pass instead of the dequantised matrix, even
    if a layer's activations are kept. There is none with respect to the kernel.
    """
    matrix, scale = dequantise(stored, inputs, rows.dtype)
    y = jnp.dot(rows, matrix, preferred_element_type=rows.dtype)
    return (y * scale).astype(rows.dtype)


def _forward(inputs: int, rows: jax.Array, stored: Stored):
    return product(inputs, rows, stored), stored


def _backward(inputs: int, stored: Stored, slope: jax.Array):
    matrix, scale = dequantise(stored, inputs, slope.dtype)
    slope = (slope * scale).astype(slope.dtype)
    return jnp.dot(slope, matrix.T, preferred_element_type=slope.dtype), None


product.defvjp(_forward, _backward)


def _split(shape: tuple[int, ...], inputs: int):
    """Sizes of the input axes but the last, of the last one, and of the output axes."""
    return shape[: inputs - 1], shape[inputs - 1], shape[inputs:]


def _fit(groups: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Codes 0 to 15 of groups [A, G, S, O], and the scale and offset [A, G, 1, O], float16.

    Several ranges around the middle of a group are tried, each refined by linear regression of the
    numbers on their codes; the one with the least squared error is used.
    """
    low, high = (f(groups, axis=2, keepdims=True) for f in (jnp.min, jnp.max))
    mean = functools.partial(jnp.mean, axis=2, keepdims=True)
    found, least = None, None
    for part in RANGES:
        step, offset = part * (high - low) / 15, (high + low) / 2 - part * (high - low) / 2
        codes = _codes(groups, step, offset)
        away = codes - mean(codes)
        step = mean(away * groups) / jnp.maximum(mean(away * away), 1e-12)
        offset = mean(groups) - step * mean(codes)
        step, offset = step.astype(jnp.float16), offset.astype(jnp.float16)
        codes = _codes(groups, step, offset)
        error = mean(jnp.square(codes * step + offset - groups))
        one = (codes, step, offset)
        if found is None:
            found, least = one, error
            continue
        better = error < least
        found = tuple(jnp.where(better, new, old) for new, old in zip(one, found, strict=True))
        least = jnp.minimum(error, least)
    return found


def _codes(groups: jax.Array, step: jax.Array, offset: jax.Array) -> jax.Array:
    step, offset = step.astype(jnp.float32), offset.astype(jnp.float32)
    return jnp.clip(jnp.round((groups - offset) / jnp.where(step > 0, step, 1)), 0, 15)
