"""The memory that a model keeps by itself between calls: what it saves, and whom it must not disturb."""

import copy
import gc
import pickle
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from gradients import Array
from runs import TINY, arrays

import edgemeta
from edgemeta.errors import InputError
from edgemeta.meta import TrainedModel
from edgemeta.nn import PICTURES, Dense, Flatten, Model, ReLU, Workspace, build
from edgemeta.nn.losses import LOSSES, Loss, cross_entropy

MODEL = build("cnn-small", (12, 12, 3), 4, normalization=PICTURES)
THETA = MODEL.init(0)


def batch(size: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (size, 12, 12, 3), np.uint8), rng.integers(0, 4, size)


def train(model: Model, steps: int = 40, seed: int = 0) -> bytes:
    theta, (x, y) = THETA.copy(), batch(6, seed)
    for _ in range(steps):
        theta -= np.float32(0.1) * model.loss_and_grad(theta, x, y)[1]
        model.descend(theta, x, y, 0.1, out=theta)
    return theta.tobytes()


def predict(model: Model, times: int = 80) -> set[bytes]:
    trained = TrainedModel(model, THETA, ("a", "b", "c", "d"))
    return {trained.predict(batch(size)[0]).tobytes() for _ in range(times) for size in (4, 1)}


def kept(model: Model) -> "weakref.ref[Workspace]":
    """Return a reference to what this thread's calls left in the model."""
    with model.scratch() as workspace:
        return weakref.ref(workspace)


def test_threads_train_and_predict_at_once_to_the_bits_of_each_alone() -> None:
    """Two threads train, on other data, and two predict, all with one model that has two threads of its own."""
    model = copy.copy(MODEL)
    model.threads = 2
    works: list[Callable[[], Any]] = [
        lambda: train(model),
        lambda: predict(model),
        lambda: train(model, seed=1),
        lambda: predict(model),
    ]
    alone = [work() for work in works]
    assert len(alone[1]) == 2  # of two sizes
    ready = threading.Barrier(len(works))

    def together(work: Callable[[], Any]) -> Any:
        ready.wait()
        return work()

    before, _ = sys.getswitchinterval(), sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(works)) as pool:
            assert list(pool.map(together, works)) == alone
    finally:
        sys.setswitchinterval(before)


def test_what_is_kept_is_used_again_and_given_back_in_the_end() -> None:
    model = copy.copy(MODEL)
    train(model, steps=1)
    mine = kept(model)
    train(model, steps=1)
    predict(model, times=1)
    assert kept(model) is mine
    gc.disable()  # a board cannot wait for the collector
    try:
        model.release()
        assert mine() is None
        assert train(model, steps=3) == train(MODEL, steps=3)  # and all goes on
        mine = kept(model)
        del model
        assert mine() is None
    finally:
        gc.enable()


def test_a_thread_has_its_own_until_it_ends() -> None:
    model, left = copy.copy(MODEL), []

    def work() -> None:
        train(model, steps=1)
        left.append(kept(model))
        assert left[0]() is not None

    train(model, steps=1)
    mine = kept(model)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert left[0]() is None
    assert mine() is not None


def test_release_frees_what_every_thread_has_and_lets_who_is_at_work_finish() -> None:
    model, at_work, go_on = copy.copy(MODEL), threading.Event(), threading.Event()
    left: list[weakref.ref[Workspace]] = []
    done: list[Any] = []

    def idle() -> None:
        train(model, steps=1)
        left.append(kept(model))
        go_on.wait(10)

    def compute() -> float:
        with model.scratch() as workspace:
            left.append(weakref.ref(workspace))
            at_work.set()
            go_on.wait(10)
            return model.loss_and_grad(THETA, *batch(5), workspace)[0]

    def busy() -> None:
        done.append((compute(), left[1]()))

    idler, worker = threading.Thread(target=idle), threading.Thread(target=busy)
    idler.start()
    while not left:
        pass
    worker.start()
    at_work.wait(10)
    model.release()
    assert left[0]() is None
    assert left[1]() is not None
    go_on.set()
    worker.join()
    idler.join()
    assert done == [(MODEL.loss_and_grad(THETA, *batch(5))[0], None)]


def test_copies_and_pickles_work_and_carry_none_of_it() -> None:
    train(MODEL, steps=1)
    mine = kept(MODEL)
    for other in (copy.copy(MODEL), copy.deepcopy(MODEL), pickle.loads(pickle.dumps(MODEL))):  # noqa: S301
        assert (other.layers, other.layout, other.loss) == (MODEL.layers, MODEL.layout, MODEL.loss)
        assert train(other, steps=2) == train(MODEL, steps=2)
        assert kept(other) is not mine
        other.release()
        assert kept(MODEL) is mine
    assert len(pickle.dumps(MODEL)) < 5000
    assert copy.copy(MODEL) != MODEL  # two models, as before
    assert hash(MODEL) == hash(MODEL)


def test_a_call_in_the_middle_of_another_one_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler's would be: here the loss calls the model, between the forward and the backward pass."""
    x, y = batch(6)

    def nosy(outputs: Array, labels: Array) -> tuple[float, Array]:
        model.forward(THETA + 1, 255 - x)
        Model.loss_and_grad(plain, THETA + 1, 255 - x, labels)
        return cross_entropy(outputs, labels)

    monkeypatch.setitem(LOSSES, "nosy", Loss(nosy, classifies=True))
    model = build("cnn-small", (12, 12, 3), 4, "nosy", PICTURES)
    plain = copy.copy(MODEL)
    for _ in range(2):
        loss, gradient = model.loss_and_grad(THETA, x, y)
        expected = MODEL.loss_and_grad(THETA, x, y)
        assert (loss, gradient.tobytes()) == (expected[0], expected[1].tobytes())


def test_an_error_leaves_nothing_half_done() -> None:
    model, (x, y) = copy.copy(MODEL), batch(6)
    expected = model.loss_and_grad(THETA, x, y)
    mine = kept(model)
    with pytest.raises(InputError, match="0 to 3"):
        model.loss_and_grad(THETA, x, y + 3)
    assert kept(model) is not mine
    again = model.loss_and_grad(THETA, x, y)
    assert (again[0], again[1].tobytes()) == (expected[0], expected[1].tobytes())


def test_what_comes_back_is_the_callers_own() -> None:
    x, y = batch(6)
    _, gradient = MODEL.loss_and_grad(THETA, x, y)
    outputs, (_, stepped) = MODEL.forward(THETA, x), MODEL.descend(THETA, x, y, 0.1)
    before = [array.tobytes() for array in (gradient, outputs, stepped)]
    MODEL.loss_and_grad(THETA + 1, 255 - x, y)
    MODEL.forward(THETA + 1, 255 - x)
    MODEL.descend(THETA + 1, 255 - x, y, 0.1)
    assert [array.tobytes() for array in (gradient, outputs, stepped)] == before


def peak_kb(work: Callable[[], Any]) -> float:
    """Return what a call takes beyond what the calls before it left."""
    for _ in range(2):
        work()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return (tracemalloc.get_traced_memory()[1] - before) / 1024
    finally:
        tracemalloc.stop()


@pytest.mark.counted
def test_the_natural_call_allocates_its_result_and_next_to_nothing_else() -> None:
    model = build("cnn-small", (32, 32, 3), 10)
    theta = model.init(0)
    x, y = np.zeros((32, 32, 32, 3), np.uint8), np.zeros(32, np.int64)
    vector_kb = theta.nbytes / 1024
    assert vector_kb > 1000
    assert vector_kb < peak_kb(lambda: model.loss_and_grad(theta, x, y)) < vector_kb + 100
    assert peak_kb(lambda: model.descend(theta, x, y, 0.0, out=theta)) < 100
    assert peak_kb(lambda: model.forward(theta, x)) < 100
    trained = TrainedModel(model, theta, tuple("0123456789"))
    assert peak_kb(lambda: trained.predict(x)) < 100
    assert peak_kb(lambda: trained.predict(x[0])) < 100


def test_a_simulation_leaves_nothing_in_the_network_that_it_was_given() -> None:
    network = Model([Flatten(), Dense(5), ReLU(), Dense(3)], (4, 4, 1))
    seen: list[Any] = []
    train(MODEL, steps=1)
    with network.scratch() as workspace:
        seen.append(weakref.ref(workspace))
    del workspace
    data = [((arrays(6, seed=k)), arrays(3, seed=9 + k)) for k in range(2)]
    edgemeta.simulate({"phases": [TINY["phases"][1] | {"rounds": 1}]}, data=data, model=network)
    assert seen[0]() is None
