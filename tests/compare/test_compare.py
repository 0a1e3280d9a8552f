"""`edgemeta compare RUN.toml... --out DIR`: whole comparisons, stopped and gone on with, and what may go wrong."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgemeta.cli import _status
from edgemeta.compare import experiment, scoring, work
from edgemeta.config import EvaluationConfig, config_from, to_toml
from edgemeta.nn import build

SETTINGS = {
    "model": {"name": "mlp"},
    "data": {"source": "synthetic:samples=120,size=8", "participants": 4, "held_out": 1, "partition": "shards:3"},
    "phases": [{"algorithm": "fedavg", "rounds": 2, "local_steps": 2, "batch_size": 4}],
    "evaluation": {"every": 1, "support": 8},
}
ROWS = ["base-seed-0", "base-seed-1", "meta-seed-0", "meta-seed-1"]


def written(path, algorithm="fedavg", tune="", **phase):
    settings = SETTINGS | {"phases": [SETTINGS["phases"][0] | {"algorithm": algorithm} | phase]}
    path.write_text(to_toml(config_from(settings)) + tune)
    return str(path)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "SUPPORTS", (20,))  # a third of the scores, in a third of the time
    monkeypatch.chdir(tmp_path)
    return [written(tmp_path / "base.toml"), written(tmp_path / "meta.toml", "fomaml")]


def compare(*arguments):
    return _status(["compare", *map(str, arguments)])


def rows(out="out"):
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(out, "rows").glob("*.json"))}


def without_seconds(row):
    return row | {"curve": [point | {"seconds": 0} for point in row["curve"]]}


@pytest.mark.slow
def test_a_comparison_stopped_anywhere_goes_on_and_ends_with_the_same_rows(runs, monkeypatch, capsys):
    assert compare(*runs, "--seeds", "0,1", "--out", "whole") == 0
    whole = rows("whole")
    assert list(whole) == ROWS

    scored = work.adapted

    def stopped(ready, theta, head, ways, k):
        if k == 2:
            raise KeyboardInterrupt
        return scored(ready, theta, head, ways, k)

    monkeypatch.setattr(work, "adapted", stopped)
    assert compare(*runs, "--seeds", "0,1", "--out", "out") == 130
    assert rows() == {}
    part = json.loads(Path("out/results.json").read_text())
    assert [run["state"] for run in part["runs"]] == ["0 of 2, at round 2 of 2", "0 of 2"]
    assert part["runs"][0]["known"]["after"]["mean"]["mean"] > 0
    assert "at round 2 of 2" in Path("out/index.html").read_text()

    asked = []

    def counted(ready, theta, head, ways, k):
        asked.append(k)
        return scored(ready, theta, head, ways, k)

    monkeypatch.setattr(work, "adapted", counted)
    assert compare(*runs, "--seeds", "0,1", "--out", "out") == 0
    assert asked[:3] == [2, 3, 0]  # two of the first run were scored before
    assert {name: without_seconds(row) for name, row in rows().items()} == {
        name: without_seconds(row) for name, row in whole.items()
    }
    capsys.readouterr()
    assert compare(*runs, "--seeds", "0,1", "--out", "out", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""  # nothing was run again
    assert json.loads(printed.out) == json.loads(Path("out/results.json").read_text())


def test_the_configured_adaptation_is_scored_as_the_run_did(runs, monkeypatch):
    monkeypatch.setattr(scoring, "SUPPORTS", (20, 100, 500))
    assert compare(runs[0], "--out", "out", "--jobs", "2") == 0
    (row,) = rows().values()
    last, people = row["curve"][-1], row["scores"]
    weights = [one["test"] for one in people[:3]]
    for key in ("before", "after"):
        assert np.average([one[key] for one in people[:3]], weights=weights) == pytest.approx(last["known"][key])
        assert people[3][key] == last["new"][key]
    some = (1, 5, 20)
    asked = {"sgd": some, "head": some, "known": (0,), "prototypes": (0, *some), "ridge": (0,)}
    cells = [(cell["adaptation"], cell["steps"], cell["support"]) for cell in people[0]["cells"]]
    assert cells == [(name, k, n) for name, counts in asked.items() for n in (20, 100, 500) for k in counts]


@pytest.mark.parametrize(("seeds", "which"), [("2", [7, 8]), ("3,", [3]), ("5,1", [5, 1])])
def test_seeds_are_how_many_or_which(runs, monkeypatch, seeds, which):
    asked = []
    monkeypatch.setattr(experiment, "unfinished", lambda work, _: asked.extend(seed for _, seed in work) or [])
    assert compare(runs[0], "--set", "seed=7", "--seeds", seeds, "--out", "out") == 0
    assert asked == which


def test_episodes_are_shown(runs, capsys):
    few = ["--set", "evaluation.episodes=2", "--set", "evaluation.ways=2", "--set", "evaluation.shots=[1]"]
    assert compare(runs[0], *few, "--out", "out") == 0
    assert "2-way 1-shot" in capsys.readouterr().out
    (run,) = json.loads(Path("out/results.json").read_text())["runs"]
    (row,) = rows().values()
    found = {task["adaptation"]: (task["participants"], task["mean"]["mean"]) for task in run["new"]["episodes"]}
    assert found == {few["adaptation"]: (1, few["accuracy"]) for few in row["scores"][3]["few"]}
    assert list(found) == ["sgd", "head", "known", "prototypes", "ridge"]
    assert "Few-shot episodes: new ones" in Path("out/index.html").read_text()


@pytest.mark.slow
def test_one_run_beside_its_baselines(runs):
    assert compare("--config", runs[1], "--out", "out") == 0
    found = {run["name"]: run for run in json.loads(Path("out/results.json").read_text())["runs"]}
    assert list(found) == ["meta", "meta (fedavg)", "meta (alone)"]
    assert len({run["gradients"]["mean"] for run in found.values()}) == 1
    assert found["meta (alone)"]["bytes"] is None
    (fedavg,) = [row for row in rows().values() if row["kind"] == "fedavg"]
    assert [phase["algorithm"] for phase in fedavg["config"]["phases"]] == ["fedavg"]


def test_a_run_that_diverges_is_shown_and_the_others_go_on(runs, tmp_path, capsys):
    wild = written(tmp_path / "wild.toml", lr=1e12)
    assert compare(wild, runs[0], f"alone:{wild}", "--out", "out") == 0
    found = rows()
    assert found["wild-seed-0"]["diverged"].startswith("participant 0, round 1: training diverged")
    assert "local step" in found["wild-seed-0"]["diverged"]
    assert found["wild (alone)-seed-0"]["diverged"].startswith("participant 0, alone: training diverged")
    assert len(found["base-seed-0"]["scores"]) == 4
    assert "diverged" in capsys.readouterr().out.splitlines()[2]
    assert "wild, seed 0, diverged: participant 0, round 1" in Path("out/index.html").read_text()


@pytest.mark.slow
def test_settings_are_chosen_on_training_data_and_by_training_participants(runs, tmp_path, capsys):
    tune = '[tune]\nvalidation = 0.25\ngrid = { "phases.0.lr" = [1e-9, 0.1], "evaluation.adapt_lr" = [1e-9, 0.05] }\n'
    rng = np.random.default_rng(0)
    y = np.arange(240, dtype=np.int64) % 3
    x = (rng.random((240, 4, 4, 1)) * 0.2 + y[:, None, None, None] * 0.3).astype(np.float32)
    data = {"x_train": x[:180], "y_train": y[:180], "x_test": x[180:], "y_test": y[180:]}
    tried = []
    for name, changed in (("right", {}), ("wrong", {"y_test": (y[180:] + 1) % 3, "x_test": 1 - x[180:]})):
        np.savez(f"{name}.npz", **data | changed)
        entry = written(tmp_path / f"{name}.toml", tune=tune)
        assert compare(entry, "--data", f"{name}.npz", "--set", "data.partition=iid", "--out", name) == 0
        (row,) = rows(name).values()
        tried.append(row["tried"])
    assert tried[0] == tried[1]  # whatever the test data is
    assert [len(row) for row in tried] == [4, 4]
    best = tried[0][0]
    assert best["accuracy"] == max(one["accuracy"] for one in tried[0]) > min(one["accuracy"] for one in tried[0])
    assert row["config"]["phases"][0]["lr"] == best["chosen"]["phases.0.lr"]
    assert row["config"]["data"]["validation"] == 0  # what is scored in the end has all training data
    assert len(list(Path("wrong/runs").glob("wrong-tuning-*"))) == 2  # two of the four share a run
    assert "phases.0.lr" in Path("wrong/index.html").read_text()
    means = []
    for folder in Path("wrong/runs").glob("wrong-tuning-*/scores-*"):
        people = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        assert len(people) == 4
        means.append(np.average([one["after"] for one in people[:3]], weights=[one["test"] for one in people[:3]]))
    assert sorted(means) == sorted(one["accuracy"] for one in row["tried"])  # the fourth is held out, and has no say


def test_a_folder_of_other_settings_is_refused_by_their_names(runs, capsys):
    assert compare(runs[0], "--out", "out") == 0
    before, page = rows(), Path("out/index.html").stat().st_mtime_ns
    assert compare(runs[0], "--set", "phases.0.lr=0.5", "--out", "out") == 2
    assert "phases.0.lr: 0.02 and 0.5" in capsys.readouterr().err
    assert rows() == before
    assert Path("out/index.html").stat().st_mtime_ns == page  # and what was shown of it stays


def test_the_same_data_may_come_by_another_path_and_other_data_may_not(runs, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(120, dtype=np.int64) % 4
    x = rng.random((120, 4, 4, 1)).astype(np.float32)
    for name, of in (("one", x), ("two", x), ("other", 1 - x)):
        np.savez(f"{name}.npz", x_train=of[:80], y_train=y[:80], x_test=of[80:], y_test=y[80:])
    iid = ("--set", "data.partition=iid", "--out", "out")
    assert compare(runs[0], "--data", "one.npz", *iid) == 0
    before = rows()
    assert compare(runs[0], "--data", "two.npz", *iid) == 0
    assert rows() == before
    capsys.readouterr()
    assert compare(runs[0], "--data", "other.npz", *iid) == 2
    assert "data.source: 'one.npz' and 'other.npz'" in capsys.readouterr().err


def test_a_damaged_row_is_made_again_and_a_newer_one_is_refused(runs, capsys, caplog):
    assert compare(runs[0], "--out", "out") == 0
    path, before = Path("out/rows/base-seed-0.json"), rows()
    path.write_text(path.read_text()[:400])
    assert compare(runs[0], "--out", "out") == 0
    assert "base-seed-0.json is damaged" in caplog.text
    assert rows() == before
    path.write_text(path.read_text().replace("edgemeta-comparison/1", "edgemeta-comparison/2"))
    capsys.readouterr()
    assert compare(runs[0], "--out", "out") == 2
    assert "edgemeta-comparison/2" in capsys.readouterr().err


def half(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def lose_models(run):
    (run / "summary.json").unlink()
    for path in (run / "model.safetensors", *run.glob("rounds/*/model.safetensors")):
        half(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("base", lambda run: half(run / "progress.json")),
        ("base", lambda run: half(run / "history.jsonl")),
        ("base", lambda run: half(run / "data.json")),
        ("base", lambda run: half(run / "summary.json")),
        ("base", lambda run: half(run / "scores" / "000002.json")),
        ("base", lose_models),
        ("base (alone)", lambda run: half(run / "data.json")),
    ],
)
def test_a_run_cut_in_the_middle_is_made_again(runs, caplog, name, cut):
    again = (runs[0], f"alone:{runs[0]}", "--out", "out")
    assert compare(*again) == 0
    before = {key: without_seconds(row) for key, row in rows().items()}
    Path("out/rows", f"{name}-seed-0.json").unlink()
    cut(Path("out/runs", f"{name}-seed-0"))
    assert compare(*again) == 0
    assert {key: without_seconds(row) for key, row in rows().items()} == before
    assert "damaged" in caplog.text


@pytest.mark.slow
def test_rows_alone_are_enough_for_tables_and_page(runs, tmp_path):
    assert compare(*runs, "--out", "out") == 0
    pages = {
        name: Path("out", name).read_text() for name in ("results.json", "results.csv", "curves.csv", "index.html")
    }
    Path("kept").mkdir()
    Path("out/rows").rename("kept/rows")
    assert compare(*runs, "--out", "kept") == 0
    assert not Path("kept/runs").exists()
    assert {name: Path("kept", name).read_text() for name in pages} == pages


def test_a_history_cut_in_the_middle_of_a_line_is_shown_as_far_as_it_is(runs):
    folder = Path("out/runs/base-seed-0")
    folder.mkdir(parents=True)
    Path("out/rows").mkdir()
    assert compare(runs[0], "--out", "whole") == 0
    lines = Path("whole/runs/base-seed-0/history.jsonl").read_text().splitlines()
    (folder / "history.jsonl").write_text("\n".join([*lines[:2], lines[2][:30]]))
    from edgemeta.compare.entries import entries_from
    from edgemeta.compare.report import comparison_of

    (entry,) = entries_from([runs[0]], None, [])
    (found,) = comparison_of(Path("out"), [(entry, 0)], None).lines
    assert found.state == "0 of 1, at round 1 of 2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{base}"], "give --out DIR"),
        (["{base}", "--config", "demo", "--out", "o"], "give the runs, or --config"),
        (["--target", "0.5"], "--target is for comparisons with --out"),
        (["{base}", "{base}", "--out", "o"], "is given twice"),
        (["{base}", "--seeds", "0,0", "--out", "o"], "each seed once"),
        (["{base}", "--seeds", "x", "--out", "o"], "expected how many"),
        (["{base}", "--seeds", "0", "--out", "o"], "the seed 0 alone is '0,'"),
        (["{base}", "--set", "phases.0.rounds=0", "--out", "o"], "give it an end"),
        (["{base}", "--set", "data.held_out=9", "--out", "o"], "data.held_out is 9 of 4"),
        (["{base}", "nothing.toml", "--out", "o"], "no configuration file or preset 'nothing.toml'"),
        (["{base}", "--set", "data.partition=shards:50", "--out", "o"], "shards:50 of 10 classes"),
        (["{base}", "--set", "model.name=custom", "--out", "o"], "custom"),
    ],
)
def test_bad_input_is_refused_before_anything_is_run(runs, capsys, arguments, said):
    assert compare(*(word.format(base=runs[0]) for word in arguments)) == 2
    assert said in capsys.readouterr().err
    assert not Path("o").exists()


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ('grid = { "data.participants" = [3] }', "settings of method"),
        ('grid = { "phases.7.lr" = [0.1] }', "no item '7'"),
        ('grid = { "phases.0.lrr" = [0.1] }', "did you mean 'lr'"),
        ('grid = { "phases.0.lr" = [-1.0] }', "phases.0.lr is -1.0"),
        ('grid = { "phases.0.lr" = [] }', "each with candidates"),
        ("validation = 0.0", "tune.validation is 0.0"),
        ("grids = 3", "unknown setting 'tune.grids'"),
    ],
)
def test_tuning_that_means_nothing_is_refused(runs, tmp_path, capsys, tune, said):
    entry = written(tmp_path / "tuned.toml", tune=f"[tune]\n{tune}\n")
    assert compare(entry, "--out", "o") == 2
    assert said in capsys.readouterr().err


def test_a_table_to_tune_by_is_for_a_comparison_alone(runs, tmp_path, capsys):
    entry = written(tmp_path / "tuned.toml", tune='[tune]\ngrid = { "phases.0.lr" = [0.1] }\n')
    assert _status(["simulate", "--config", entry]) == 2
    assert "the table 'tune' is for `edgemeta compare RUN.toml --out DIR`" in capsys.readouterr().err


def test_two_files_of_one_name_are_called_by_their_folders(runs, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "run.toml")
    from edgemeta.compare.entries import entries_from

    found = entries_from(["one/run.toml", "two/run.toml", "base.toml", "alone:base.toml", "demo"], None, [])
    assert [entry.name for entry in found] == ["one-run", "two-run", "base", "base (alone)", "demo"]


def test_of_many_participants_thirty_are_scored_and_all_new_ones():
    def who(participants, held_out):
        config = config_from({"data": {"participants": participants, "held_out": held_out}})
        return scoring.scored(SimpleNamespace(config=config, participants=[None] * participants))

    assert who(100, 10) == [*range(0, 90, 3), *range(90, 100)]
    assert who(12, 2) == list(range(12))


def test_a_run_that_may_answer_none_of_these_is_compared_in_every_adaptation():
    ways = scoring.ways_of(EvaluationConfig(reject=0.1, adaptation="prototypes"), build("mlp", (8, 8, 3), 4))
    assert set(ways) == {"prototypes", "sgd", "head", "known", "ridge"}
    assert [name for name, way in ways.items() if way.reject] == ["prototypes"]
