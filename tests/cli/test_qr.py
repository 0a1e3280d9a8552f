"""QR codes in the terminal, read back from what stands there, and beside the library's own matrix."""

import os
import re
import subprocess
import sys

import pytest
import segno

from edgemeta.cli import _status
from edgemeta.link.joinfile import read_join_file

DARK = {" ": (1, 1), "\u2580": (0, 1), "\u2584": (1, 0), "\u2588": (0, 0)}  # white on black: (upper, lower) half
LINE = re.compile("\x1b\\[97;40m([ \u2580\u2584\u2588]+)\x1b\\[0m")
FINDER = ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"]


def read(text):
    """Return the rows of the code in a text, quiet zone and all, as "0" (light) and "1"."""
    rows = []
    for line in LINE.findall(text):
        rows += ["".join(str(DARK[letter][half]) for letter in line) for half in (0, 1)]
    return rows[: len(rows[0])]  # an odd number of rows leaves half a line


def quiet(rows):
    """Return the code without its quiet zone of four, which is light."""
    assert {*"".join(rows[:4] + rows[-4:])} == {"0"}
    assert all(row[:4] == row[-4:] == "0000" for row in rows)
    return [row[4:-4] for row in rows[4:-4]]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


ENROLL = ["enroll", "cam", "--url", "http://10.0.0.5", "--qr"]


def test_the_code_of_a_join_file_is_the_file(here, capsys):
    assert _status(ENROLL) == 0
    code = quiet(read(capsys.readouterr().out))
    for corner in ([row[:7] for row in code[:7]], [row[-7:] for row in code[:7]], [row[:7] for row in code[-7:]]):
        assert corner == FINDER
    text = (here / "cam.join").read_text()
    assert read_join_file(here / "cam.join").token in text
    assert code == ["".join(map(str, row)) for row in segno.make(text, error="L", boost_error=False).matrix]


def test_without_the_library_it_is_one_line_and_the_file_is_there(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "segno", None)
    assert _status(ENROLL) == 0
    said = "no QR code is shown, as that takes one more package: pip install 'edgemeta[qr]'"
    assert said in capsys.readouterr().err.splitlines()
    assert (here / "cam.join").exists()


@pytest.mark.slow
def test_a_phone_pairs_by_the_code_of_the_page_and_a_small_window_is_said(tmp_path, tab):
    master, slave = os.openpty()
    words = [sys.executable, "-m", "edgemeta", "teach", "--state", "board", "--host", "0.0.0.0", "--port", "0"]
    small = {**os.environ, "COLUMNS": "40", "LINES": "10"}
    process = subprocess.Popen(words, cwd=tmp_path, stdout=slave, stderr=subprocess.PIPE, env=small)
    os.close(slave)
    try:
        said = ""
        while not re.search("m\u2580+\x1b", said):  # the last row, half a line
            said += os.read(master, 1 << 16).decode()
        said = said.replace("\r", "")
        (address,) = re.findall(r"^the page is (https://\S+/)$", said, re.M)
        (code,) = re.findall(r"^its pairing code is (....-....)$", said, re.M)
        url = f"{address}#{code.replace('-', '')}"
        made = segno.make(url, error="L", boost_error=False, micro=False).matrix
        assert quiet(read(said)) == ["".join(map(str, row)) for row in made]

        tab.call("Security.setIgnoreCertificateErrors", ignore=True)
        here = re.sub(r"//[^/]*:", "//127.0.0.1:", url)
        tab.open(here)
        tab.wait("!document.getElementById('open').hidden")
        assert tab.value("location.href") == here.partition("#")[0]
        assert tab.requests.count(here.partition("#")[0]) == 1  # and no address with a code in it
        assert not [asked for asked in tab.requests if here[-8:] in asked]
    finally:
        process.terminate()
        complaint = process.communicate(timeout=10)[1].decode()
        os.close(master)
    width = len(made) + 8
    assert f"the code takes {width} columns and {(width + 1) // 2 + 1} lines: enlarge the window" in complaint
