"""Products counted in a function as it is written, against counts made by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from hocslm_jax.plan.products import product_flops


def count(function, *shapes, platform="cpu"):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return product_flops(jax.make_jaxpr(function)(*arguments).jaxpr, platform)


def test_a_product_is_counted_whatever_surrounds_it():
    wrapped = jax.jit(lambda a, b: jnp.tanh(jnp.einsum("bij,bjk->bik", a, b) + 1))
    assert count(wrapped, (2, 3, 5), (2, 5, 7)) == 2 * 2 * 3 * 5 * 7


def test_a_loop_counts_as_often_as_it_runs():
    def loop(x, weights):
        return lax.scan(lambda x, w: (x @ w, None), x, weights)[0]

    assert count(loop, (8, 4), (6, 4, 4)) == 6 * 2 * 8 * 4 * 4


def test_rematerialised_products_count_again():
    def loss(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w).sum()

    plain = count(jax.grad(loss), (8, 4), (4, 4))
    again = count(jax.grad(jax.checkpoint(loss)), (8, 4), (4, 4))
    assert again == plain + 2 * 2 * 8 * 4 * 4


@pytest.mark.parametrize(("platform", "products"), [("cpu", 0), ("tpu", 1), ("gpu", 2)])
def test_what_is_written_for_the_platform_counts(platform, products):
    def function(x):
        written = {"cpu": lambda x: x, "tpu": lambda x: x @ x, "default": lambda x: x @ x @ x}
        return lax.platform_dependent(x, **written)

    assert count(function, (4, 4), platform=platform) == products * 2 * 4**3


def test_conditional_counts_as_its_larger_branch():
    def function(x):
        return lax.cond(x.sum() > 0, lambda x: x, lambda x: x @ x, x)

    assert count(function, (4, 4)) == 2 * 4**3


def test_a_convolution_counts_its_groups():
    def convolve(x, kernel):
        return lax.conv_general_dilated(x, kernel, (2,), [(2, 2)], feature_group_count=2)

    # [N, C, T] and [O, C / groups, taps]; every second of 16 frames
    assert count(convolve, (3, 6, 16), (4, 3, 5)) == 2 * (3 * 4 * 8) * 3 * 5
