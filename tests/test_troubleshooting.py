"""The page of troubles: what it quotes is what the package says."""

import re
from pathlib import Path

import pytest
from messages import HOLE, said

PAGE = (Path(__file__).parent.parent / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^\| `([^`]*)` \|", PAGE, re.MULTILINE) + re.findall(rf"^`(.*{HOLE}.*?)`", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def texts():
    return "\n".join(said())


@pytest.mark.parametrize("message", QUOTED)
def test_each_message_is_one_of_the_packages(message, texts):
    """The holes of both are the same, but that a message may begin or end with one, where more is said."""
    assert message.strip(HOLE) in texts


def test_there_are_many_and_a_made_up_one_is_none(texts):
    assert len(QUOTED) > 35
    assert "the gateway has gone for a walk" not in texts
    assert HOLE in "".join(QUOTED)
