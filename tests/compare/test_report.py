"""A run as one page, and in the terminal: whole, half-written, at work, and a folder of something else."""

import json
import shutil

import pytest
from gateways import ACCEPTED, Gateway, no_gateway_left
from markup import Checked
from runs import TINY, command_line

import edgemeta
from edgemeta.cli import _status
from edgemeta.compare.single import run_page

SCORE = {"accuracy": {"mean": 0.5, "p10": 0.25, "p50": 0.5, "p90": 0.75}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "<i>run"
    edgemeta.simulate(TINY, out=folder)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def told(capsys, *arguments):
    status = _status(list(map(str, arguments)))
    return status, *capsys.readouterr()


def test_a_run_is_one_page_that_asks_for_nothing(run):
    page = run_page(run)
    found = Checked(page)
    assert (found.links, "script" in found.seen, "i" in found.seen) == ([], False, False)
    assert "Run <i>run: round 4 of 4, over" in found.shown
    records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    last = records[-1]["evaluation"]["after"]["accuracy"]
    cell = f"{100 * last['mean']:.1f} % ({100 * last['p10']:.1f} to {100 * last['p90']:.1f})"
    assert cell in found.shown
    assert f"{records[-1]['train_loss']:.4g}" in found.shown
    assert f"{sum(record['bytes_up'] for record in records):,}" in found.shown
    assert any('source = "synthetic:samples=120,size=8"' in text for text in found.shown)
    captions = ("accuracy", "loss")
    assert [text for text in found.shown if text.endswith(", new participants")] == [
        f"{metric}, new participants" for metric in captions
    ]


def test_the_chance_level_is_drawn_where_its_classes_say(run):
    # 10 classes and so 10 %: in a chart up to 20 %, 40 %, ... that is 194 * 10 / top units above the line at 204.
    page = run_page(run)
    tops = [float(204 - 194 * 0.1 / (0.2 * step)) for step in range(1, 6)]
    assert any(f'points="44.0,{top:.1f} ' in page for top in tops)


def test_a_run_that_is_cut_in_the_middle_of_a_line_is_shown_as_far_as_it_is(copy):
    path = copy / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    shown = Checked(run_page(copy)).shown
    assert f"{json.loads(lines[1])['train_loss']:.4g}" in shown
    assert f"{json.loads(lines[2])['train_loss']:.4g}" not in shown
    path.write_text('[]\n7\n{"round": 1}\n')
    assert "No round is finished yet." in Checked(run_page(copy)).shown
    path.unlink()
    assert "No round is finished yet." in Checked(run_page(copy)).shown


def test_who_was_missing_and_cut_down_is_said(copy):
    record = {"round": 2, "train_loss": 1.0, "evaluation_missing": [3], "clipped": [1, 3]}
    (copy / "history.jsonl").write_text(f"{json.dumps(record)}\n{json.dumps({**record, 'round': 4})}\n")
    shown = Checked(run_page(copy)).shown
    assert "Participant 3 did not score a model, in 2 rounds." in shown
    assert "Participant 1 sent an update that was scaled down, in 2 rounds." in shown


def test_where_the_page_goes_and_what_is_no_run(copy, tmp_path, capsys):
    page = copy / "report.html"
    assert told(capsys, "report", copy) == (0, f"{page}\n", "")
    assert page.read_text() == run_page(copy)
    assert told(capsys, "report", copy, "--out", tmp_path / "other.html")[0] == 0
    assert (tmp_path / "other.html").read_text() == page.read_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "none", tmp_path):
        status, said, error = told(capsys, "report", folder)
        assert (status, said) == (2, "")
        assert error.startswith(f"Error: there is no run in {folder}: ")
    (empty / "run.toml").write_text("seed = ")
    assert told(capsys, "report", empty)[0] == 2
    assert list(empty.iterdir()) == [empty / "run.toml"]


def test_a_run_in_the_terminal(copy, capsys):
    status, said, _ = told(capsys, "status", copy)
    assert status == 0
    assert said.splitlines()[0] == "run run: over, round 4 of 4"
    assert told(capsys, "watch", copy)[1] == said
    shown = json.loads(told(capsys, "status", copy, "--json")[1])
    assert (shown["round"], len(shown["curves"]["losses"])) == (4, 4)
    score = {"round": 4, "train_loss": None, "evaluation": {"before": None, "after": SCORE}, "evaluation_new": None}
    (copy / "history.jsonl").write_text(json.dumps(score) + "\n")
    assert told(capsys, "status", copy)[1].splitlines()[1:] == ["round 4: accuracy 50.0%"]


@pytest.mark.slow
def test_a_gateway_in_the_terminal_and_one_that_is_away(tmp_path, capsys):
    gateway = Gateway(tmp_path / "state")
    place = f"http://127.0.0.1:{gateway.port}"
    with no_gateway_left([gateway]):
        gateway.device("<b>cam")
        lines = told(capsys, "status", place)[1].splitlines()
        assert lines[0] == "run 0001: round 0, evaluation: 1 of 2 training devices have joined"
        words = ["<b>cam", "participant", "0", "waits", "heard", "0", "s", "ago", "counted", "in", "round", "0"]
        assert lines[1].split() == words
        peers = [gateway.device("<b>cam"), gateway.device("b")]
        for peer in peers:
            assert peer.work(wait=5) == ("evaluate", 0)
        head = told(capsys, "status", place)[1].splitlines()[0]
        assert head == "run 0001: evaluate, round 0 of 1, 0 of 2 devices have delivered"
        assert json.loads(told(capsys, "status", place, "--json")[1])["joined"] == 2
        (tmp_path / "token").write_text("Authorization: Bearer wrong\n")
        assert told(capsys, "status", place, "--token", tmp_path / "token")[0] == 0
        assert [peer.scores() for peer in peers] == [ACCEPTED, ACCEPTED]
        assert [peer.update() for peer in peers] == [ACCEPTED, ACCEPTED]
        assert [peer.scores(round_number=1) for peer in peers] == [ACCEPTED, ACCEPTED]
        done = command_line("watch", place)
        assert done.stdout.splitlines() == [
            "run 0001: over, round 1 of 1",
            "round 1: loss 0.5",
            "round 1: accuracy 50.0% -> 50.0%",
        ]
        page = run_page(tmp_path / "state")
    assert "Run 0001: round 1 of 1, over" in page
    status, _, error = told(capsys, "status", place)
    assert (status, error.startswith(f"Error: {place} does not answer: ")) == (1, True)
    assert told(capsys, "status", "https://127.0.0.1")[0] == 2
