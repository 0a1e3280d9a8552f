"""The sinusoid task of Finn et al. 2017, in short; the module's docstring has the whole run's figures."""

import json

import numpy as np
import pytest

from edgemeta.bench import sinusoid


def test_meta_training_beats_pretraining_after_adaptation() -> None:
    model = sinusoid.network()
    meta = sinusoid.meta_train(model, 1200, np.random.default_rng(1))
    pretrained = sinusoid.pretrain(model, 1200, np.random.default_rng(1))
    curve = sinusoid.errors_after(model, meta, 0.01, 10, 150, 2)
    rivals = [sinusoid.errors_after(model, pretrained, lr, 10, 150, 2) for lr in sinusoid.RATES]
    for steps in (1, 5, 10):
        assert curve[steps] < 0.8 * min(rival[steps] for rival in rivals)  # at whatever rate suits it best
    assert curve[10] < 0.5 * curve[0]


def test_tasks_are_the_papers() -> None:
    rng = np.random.default_rng(0)
    amplitudes, phases = [], []
    for _ in range(200):
        samples = sinusoid.draw_task(rng)(50)
        assert samples.x.shape == samples.y.shape == (50, 1)
        assert np.abs(samples.x).max() <= 5
        # y = A sin(x - p) = a sin x - b cos x with A^2 = a^2 + b^2 and p = atan2(b, a): least squares finds both.
        x, y = samples.x[:, 0].astype(np.float64), samples.y[:, 0]
        (a, b), rest, *_ = np.linalg.lstsq(np.stack([np.sin(x), -np.cos(x)], axis=1), y, rcond=None)
        assert rest[0] < 1e-9
        amplitudes.append(np.hypot(a, b))
        phases.append(np.arctan2(b, a))
    assert 0.1 <= min(amplitudes) < 0.4
    assert 4.7 < max(amplitudes) <= 5
    assert 0 <= min(phases) < 0.1
    assert np.pi - 0.1 < max(phases) <= np.pi


def test_adam_by_hand() -> None:
    # A constant direction: both corrected moments are its own, so each step is lr times its sign.
    theta = sinusoid.adam(np.array([1.0, 1.0, 1.0]), lambda _: np.array([3.0, -0.5, 0.0]), 4, lr=0.25)
    np.testing.assert_allclose(theta, [0.0, 2.0, 1.0], atol=1e-6)


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    sinusoid.main(["--iterations", "2", "--seeds", "5", "--tasks", "6", "--json"])
    results = json.loads(capsys.readouterr().out)
    assert set(results["5"]["10 points"]["fomaml"]) == {"0", "1", "5", "10"}
    runs = [{"5 points": {"fomaml": {0: n, 1: 2.0 * n, 5: 1.0, 10: 10.0**n}}} for n in (1.0, 3.0, 2.0)]
    table = sinusoid.table(runs)
    cells = "2 (1 to 3) 4 (2 to 6) 1 (1 to 1) 100 (10 to 1e+03)"
    assert f"fomaml {cells}" in " ".join(table.split())
    assert "0.67" in table
