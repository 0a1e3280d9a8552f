"""Layers of one's own: what a kernel is asked for, and what it is refused."""

import ast
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from gradients import Array, check_gradient

import edgemeta.nn.kernels
from edgemeta.nn import Conv2d, Dense, Flatten, Model, ReLU
from edgemeta.nn.kernels.kernel import Backward, Kernel, Prepared

SHAPE = (6, 7, 2)


def scale(results: tuple[int, int], x: Array, scratch: Any, kept: Any) -> Prepared:
    """y = x * weight. results: how many it takes, forward and backward, where one each is right."""
    y, *_ = (scratch.result(x.shape, x.dtype) for _ in range(results[0]))
    seen = kept.samples("x", x.shape, x.dtype) if kept else None

    def forward(params: Any) -> None:
        np.multiply(x, params["weight"], out=y)
        if kept:
            seen[...] = x

    def prepare_backward(dy: Array, _need_dx: bool) -> tuple[Array, Backward]:
        dx, *_ = (scratch.result(dy.shape, dy.dtype) for _ in range(results[1]))
        product = scratch.array("product", dy.shape, dy.dtype)

        def backward(params: Any, grads: Any) -> None:
            np.multiply(dy, seen, out=product)
            np.sum(product, axis=tuple(range(dy.ndim - 1)), out=grads["weight"])
            np.multiply(dy, params["weight"], out=dx)

        return dx, backward

    return Prepared(y, forward, prepare_backward)


def doubled(tensors: Any, _need_dx: bool, _scratch: Any) -> Any:
    return {"weight": 2 * tensors["weight"]}


def halved(sums: Any, grads: Any, _scratch: Any) -> None:
    grads["weight"][...] = 2 * sums["weight"]


@dataclass(frozen=True)
class Scale:
    """One weight for each channel or unit. twice: in its working form, weights are doubled."""

    forward: int = 1
    backward: int = 1
    twice: int = 0
    prefix: ClassVar[str] = "scale"

    def shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
        return shape, {"weight": shape[-1:]}

    def computed_by(self, _shape: tuple[int, ...], _dtype: Any) -> Kernel:
        prepare = partial(scale, (self.forward, self.backward))
        return Kernel(prepare, to_working=doubled, from_working=halved) if self.twice else Kernel(prepare)


def after_pictures(layer: Scale) -> Model:
    return Model([Conv2d(3, 3), Flatten(), layer, Dense(4)], SHAPE)


def of_pictures(layer: Scale) -> Model:
    return Model([Conv2d(3, 3), layer, ReLU(), Flatten(), Dense(4)], SHAPE)


def draw(model: Model, batch: int = 3) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(model.layout.size)
    return theta, rng.standard_normal((batch, *SHAPE)), rng.integers(0, model.outputs, batch)


@pytest.mark.parametrize("model", [after_pictures(Scale()), of_pictures(Scale()), of_pictures(Scale(twice=1))], ids=str)
def test_a_layer_of_ones_own_is_trained_like_any_other(model: Model) -> None:
    theta, x, y = draw(model, 2 * model.chunk + 1)
    _, gradient = model.loss_and_grad(theta, x, y)
    rng, part = np.random.default_rng(1), model.layout.slices["scale1.weight"]
    check_gradient(lambda t: model.loss_and_grad(t, x, y)[0], gradient, theta, rng)
    check_gradient(
        lambda p: model.loss_and_grad(np.r_[theta[: part.start], p, theta[part.stop :]], x, y)[0],
        gradient[part],
        theta[part],
        rng,
    )
    stepped = model.descend(theta, x, y, 0.5)[1]
    assert stepped.tobytes() == (theta - 0.5 * gradient).tobytes()


def test_what_a_kernel_takes_in_a_form_of_its_own_is_what_it_computes_with() -> None:
    theta, x, _ = draw(of_pictures(Scale()))
    part = of_pictures(Scale()).layout.slices["scale1.weight"]
    doubled_by_hand = theta.copy()
    doubled_by_hand[part] *= 2
    outputs = of_pictures(Scale(twice=1)).forward(theta, x)
    assert outputs.tobytes() == of_pictures(Scale()).forward(doubled_by_hand, x).tobytes()


@pytest.mark.parametrize("network", [after_pictures, of_pictures])
def test_a_second_result_in_one_pass_is_refused(network: Any) -> None:
    """It would be the buffer that the layer reads. Whoever wrote the layer is told which one, and what to do."""
    for layer in (Scale(forward=2), Scale(backward=3)):
        model = network(layer)
        theta, x, y = draw(model)
        with pytest.raises(RuntimeError, match=rf"{re.escape(str(layer))} takes .* call scratch\.result once"):
            model.loss_and_grad(theta, x, y)
    theta, x, _ = draw(network(Scale(backward=2)))
    assert network(Scale(backward=2)).forward(theta, x).tobytes() == network(Scale()).forward(theta, x).tobytes()


def test_a_working_form_where_gradients_are_not_taken_back_is_refused() -> None:
    model = after_pictures(Scale(twice=1))
    theta, x, y = draw(model)
    with pytest.raises(RuntimeError, match=r"Scale\(.*twice=1\) comes after the pictures"):
        model.loss_and_grad(theta, x, y)


def test_kernels_know_no_layer_and_no_model() -> None:
    below = ("edgemeta.nn.kernels", "edgemeta.nn.layout", "edgemeta.errors")
    for path in Path(edgemeta.nn.kernels.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.level or str(node.module).startswith("edgemeta")):
                assert str(node.module).startswith(below), f"{path.name} imports {node.module}"
