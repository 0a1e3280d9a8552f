"""The page on the life of a site: its session is what the commands say."""

import re
import shlex
from pathlib import Path

import pytest
from processes import SPEC, end
from runs import command_line

from edgemeta.bench.loopback import device, start_gateway

PAGE = (Path(__file__).parent.parent / "docs" / "site.md").read_text()
RUN = """
[model]
name = "mlp"
input_shape = [8, 8, 3]
classes = 10
[data]
source = "synthetic:samples=120,size=8"
participants = 1
partition = "iid"
[[phases]]
rounds = 8
local_steps = 1
[evaluation]
every = 100
"""


@pytest.mark.slow
def test_the_session_on_the_page_is_what_the_commands_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(RUN)
    process, url = start_gateway(Path("run.toml"), Path("site"))
    try:
        one = device(url, tmp_path / "board", "--data", SPEC, "--once")
        assert one.wait(30) == 0
        end(one)
        (session,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
        for example in session.removeprefix("$ ").split("\n$ "):
            command, *shown = example.strip().splitlines()
            done = command_line(*shlex.split(command)[1:], cwd=tmp_path)
            assert (done.stdout + done.stderr).splitlines() == shown, command
            assert done.returncode == (2 if "Error" in example else 0)
    finally:
        end(process)
