"""From rows to figures and notes, by hand."""

from dataclasses import replace

import pytest

from edgemeta.compare.entries import Kind
from edgemeta.compare.notes import differing, notes_of, tuned_of
from edgemeta.compare.results import Figure, lines_of, targets_of
from edgemeta.compare.rows import Cell, Few, Point, Reach, Row, Scores, Tried
from edgemeta.compare.tables import adaptations, percent, results_csv, summary, until

CONFIG = {
    "data": {"source": "x", "participants": 4, "held_out": 1, "partition": "iid"},
    "evaluation": {"every": 1, "adapt_steps": 5, "support": 8, "adapt_lr": 0.1},
}


def scores(k, test, before, after, cell):
    return Scores(k, 10, test, before, after, [Cell("sgd", 20, 100, cell)])


def row(name="a", seed=0, **changes):
    people = [
        scores(0, 10, 0.5, 0.9, 0.4),
        scores(1, 30, 0.5, 0.4, 0.8),
        scores(2, 40, 0.5, 0.5, 1.0),
        scores(3, 20, 0.2, 0.6, 0.1),
    ]
    curve = [
        Point(0, 0, 0, 0.0, Reach(0.1, 0.2, 0.1), Reach(0.1, 0.2, 0.1)),
        Point(2, 100, 5_000_000, 4.0, Reach(0.3, 0.62, 0.5), Reach(0.3, 0.4, 0.4)),
        Point(4, 200, 9_000_000, 8.0, Reach(0.5, 0.7, 0.5), Reach(0.2, 0.6, 0.6)),
    ]
    given = {"asked": {}, "config": CONFIG, "data": {"labels": "L"}, "curve": curve, "scores": people, "rounds": 4}
    return Row(name, Kind.RUN, seed, **(given | changes))


def line(*rows, targets=None):
    (found,) = lines_of(rows, targets or {"known": 0.6, "new": 0.65}, len(rows))
    return found


def test_a_mean_is_weighted_by_test_samples_and_held_out_ones_are_apart():
    known, new = (line(row()).groups[group] for group in ("known", "new"))
    assert known.before == Figure((0.5,))
    # (10 x .9 + 30 x .4 + 40 x .5) / 80
    assert known.after.mean.mean == pytest.approx(41 / 80)
    assert new.after.mean.mean == 0.6
    assert known.ways[0].mean.mean == pytest.approx((4 + 24 + 40) / 80)


def test_the_share_made_worse_and_the_tenth_percentile():
    known, new = (line(row()).groups[group] for group in ("known", "new"))
    assert known.after.worse.mean == pytest.approx(1 / 3)  # .4 below .5; .5 is no worse than .5
    assert known.after.p10.mean == pytest.approx(0.4 + 0.2 * 0.1)  # of .4, .5, .9: a fifth of the way to the second
    assert known.ways[0].worse.mean == pytest.approx(1 / 3)
    assert (new.after.worse.mean, new.ways[0].worse.mean) == (0, 1)


def test_over_seeds_the_mean_and_how_far_they_lie_apart():
    better = [replace(one, after=1.0) for one in row().scores]
    found = line(row(), row(seed=1, scores=better)).groups["known"].after.mean
    assert percent(found) == f"{100 * (41 / 80 + 1) / 2:.1f}% ({100 * (1 - 41 / 80):.1f})"


def test_until_a_target():
    known, new = (line(row()).groups[group].until for group in ("known", "new"))
    assert [figure.mean for figure in (known.rounds, known.gradients, known.bytes, known.seconds)] == [2, 100, 5e6, 4]
    assert (new.reached, new.rounds) == (0, None)
    slow = row(seed=1, curve=row().curve[:2])
    half = line(row(), slow, targets={"known": 0.7, "new": None})
    assert until([half], "known")[1] == [["a", "in 1 of 2 seeds", "-", "-", "-"]]
    assert half.groups["new"].until is None


def test_the_target_that_nobody_named_is_what_two_runs_reach():
    low = [replace(row().curve[0], known=Reach(0.1, 0.58, 0.1), new=None)]
    lowest = [replace(row().curve[0], known=Reach(0.1, 0.31, 0.1), new=None)]
    rows = [row("a"), row("b", curve=low), row("c", curve=lowest)]
    assert targets_of(rows, None) == {"known": 0.55, "new": 0.6}  # of new ones only one run knows anything
    assert targets_of(rows, 0.9) == {"known": 0.9, "new": 0.9}


def test_a_run_without_a_global_model_has_nothing_before():
    bare = [replace(one, before=None) for one in row().scores]
    group = line(row(scores=bare)).groups["known"]
    assert (group.before, group.after.worse) == (None, None)


def test_a_run_at_work_shows_what_it_had_reached_and_a_diverged_one_that_it_diverged():
    at_work, diverged = row("a", scores=[]), row("b", scores=[], diverged="participant 2, round 3: ...")
    lines = lines_of([at_work, diverged], {"known": 0.6, "new": 0.6}, 1)
    assert [line.state for line in lines] == ["0 of 1, at round 4 of 4", "diverged"]
    assert lines[0].groups["known"].after.mean == Figure((0.7,))
    assert lines[1].groups["known"].after is None
    assert any("b, seed 0, diverged: participant 2, round 3" in note.text for note in notes_of(lines))
    assert results_csv(lines).splitlines()[-1].endswith(',"participant 2, round 3: ..."')
    some = lines_of(
        [row("a"), row("a", 1, scores=[], diverged="x"), row("a", 2, scores=[], curve=[])],
        {"known": 0.6, "new": 0.6},
        3,
    )
    assert some[0].state == "1 of 3, 1 diverged"


def texts(*rows):
    return [note.text for note in notes_of(lines_of(rows, {"known": 0.6, "new": 0.6}, 1))]


def test_other_data_and_unequal_budgets_are_said_and_equal_ones_are_not():
    short = {"scores": [replace(one, train=100) for one in row().scores]}
    assert texts(row("a", **short), row("b", **short)) == []
    assert "Not the same data, at seed 0: a; other than that of b." in texts(row("a"), row("b", data={"labels": "M"}))
    noisy = CONFIG | {"data": CONFIG["data"] | {"label_noise": 0.4}}
    noisy_too = CONFIG | {"data": CONFIG["data"] | {"label_noise": 0.0}}
    said = texts(row("a", config=noisy_too), row("b", config=noisy))
    assert "Not the same data: data.label_noise is 0.0 in a; 0.4 in b." in said
    double = [replace(point, gradients=2 * point.gradients) for point in row().curve]
    said = texts(row("a"), row("b", curve=double))
    assert "Unequal budgets, in gradients on training participants: 200 in a; 400 in b." in said
    assert not any("MB" in text for text in said)
    assert "Not over the same seeds: 0 in a; 1 in b." in texts(row("a"), row("b", seed=1))


def test_a_support_set_larger_than_the_data_is_said():
    assert texts(row()) == ["Support sets of 100: there are participants with 10 training samples, and all were used."]


def test_episodes_are_a_mean_over_those_who_have_classes_enough():
    shares = [(0.5, 0.6), (0.7, None), (0.9, None), (0.2, None)]
    people = [
        replace(one, few=[Few("sgd", 5, 1, first), Few("sgd", 5, 5, second)])
        for one, (first, second) in zip(row().scores, shares, strict=True)
    ]
    found = line(row(scores=people)).groups
    assert [(task.shots, task.mean.mean, task.participants) for task in found["known"].tasks] == [
        (1, pytest.approx(0.7), 3),
        (5, 0.6, 1),
    ]
    assert [task.shots for task in found["new"].tasks] == [1]


def test_settings_that_differ_are_a_row_each_and_a_list_is_one() -> None:
    """Ten classes are one setting; phases are as many as there are."""
    first = CONFIG | {"model": {"classes": ["a", "b"]}, "phases": [{"lr": 0.1}]}
    second = CONFIG | {"model": {"classes": "own"}, "phases": [{"lr": 0.2}, {"lr": 0.1}]}
    found = differing([line(row("a", config=first)), line(row("b", config=second))])
    assert found == {"model.classes": ["a, b", "own"], "phases.0.lr": ["0.1", "0.2"], "phases.1.lr": ["", "0.1"]}


def test_how_models_are_adapted_is_said_by_name_where_the_settings_leave_it_to_the_model() -> None:
    other = CONFIG | {"evaluation": CONFIG["evaluation"] | {"adapt_lr": 0.2}}
    said = texts(row("a"), row("b", config=other))
    assert "Not adapted alike: sgd, 5 steps at 0.1 on 8 in a; sgd, 5 steps at 0.2 on 8 in b." in said


def test_every_adaptation_has_a_row_and_columns_are_in_order():
    cells = [("sgd", 1, 100, 0.5), ("sgd", 1, 20, 0.6), ("prototypes", 0, 20, 0.8), ("prototypes", 1, 20, 0.7)]
    people = [replace(one, before=0.55, cells=[Cell(*cell) for cell in cells]) for one in row().scores]
    found = adaptations([line(row(scores=people))], "new")
    assert list(found) == [20, 100]
    assert found[20] == (
        ["new ones", "as it is", "0 steps", "1 step"],
        [["a, sgd", "55.0%", "-", "60.0%"], ["a, prototypes", "55.0%", "80.0%", "70.0%"]],
    )
    assert found[100] == (["new ones", "as it is", "1 step"], [["a, sgd", "55.0%", "50.0% ↓100%"]])


def test_what_was_tuned_on_what_and_with_how_much_effort():
    tried = [Tried({"phases.0.lr": 0.1}, 0.75), Tried({"phases.0.lr": 9.0}, None, "loss")]
    tuned = row("a", tried=tried, validation=0.25)
    (found,) = lines_of([tuned], {"known": None, "new": None}, 1)
    said = tuned_of(found)
    assert "phases.0.lr = 0.1, of 2 combinations: 75.0 %" in said
    assert "25 % of their training data set aside, at seed 0" in said
    assert "phases.0.lr = 9.0: diverged" in said
    assert any("Unequal effort" in text and "2 for a; none for b" in text for text in texts(tuned, row("b")))
    aside = CONFIG | {"data": CONFIG["data"] | {"validation": 0.2}}
    assert any("these are no results" in text for text in texts(row(config=aside)))


def test_alone_is_counted_on_training_participants_and_has_no_traffic():
    people = [replace(one, before=None, cells=[], gradients=50) for one in row().scores]
    found = line(replace(row(scores=people, curve=[]), kind=Kind.ALONE))
    assert (found.gradients, found.bytes, found.seconds) == (Figure((150.0,)), None, None)
    header, ((*cells,),) = summary([found], [])
    assert dict(zip(header, cells, strict=True))["participants"] == "-"
    assert found.groups["known"].after.adaptation == "alone"
