"""A device's page in a real browser: a thing is taught, known again, and forgotten; hostile names stay text."""

import numpy as np
import pytest
from device_pages import COLOURS, own_network, page, picture, write_device

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"


def teach(tab, label, *files):
    tab.value("document.getElementById('label').focus(); document.getElementById('label').select()")
    tab.write(label)
    tab.choose("#teach input[multiple]", *files)
    tab.wait(f"document.getElementById('teach-said').textContent === 'Learned {len(files)} pictures of “{label}”.'")


def button(label):
    """Return the expression that finds a button among what is held."""
    return f"[...document.querySelectorAll('#held button')].find((one) => one.ariaLabel === '{label}')"


def test_taught_known_again_and_forgotten(tmp_path, tab):
    for colour in ("red", "blue"):
        for seed in range(3):
            (tmp_path / f"{colour}-{seed}.jpg").write_bytes(picture(colour, seed, size=700, kind="JPEG"))
    write_device(tmp_path / "state", own_network())
    with page(tmp_path / "state") as (device, asked):
        tab.open(f"http://127.0.0.1:{asked.port}/", width=360, height=740)
        tab.wait("!document.getElementById('open').hidden")
        assert tab.value("document.querySelector('h1').textContent") == "Teach <b>board</b>"
        assert "Pictures stay on this device" in tab.value("document.querySelector('header').innerText")
        teach(tab, HOSTILE, tmp_path / "red-0.jpg", tmp_path / "red-1.jpg")
        assert "It knows one thing" in tab.value("document.getElementById('notice').innerText")
        teach(tab, "my key", tmp_path / "blue-0.jpg", tmp_path / "blue-1.jpg")
        assert device.classes == (HOSTILE, "my key")
        for colour, label in (("blue", "my key"), ("red", HOSTILE)):
            tab.choose("#try input", tmp_path / f"{colour}-2.jpg")
            tab.wait(f"document.querySelector('#result strong')?.textContent === '{label}'")
            captions = "[...document.querySelectorAll('#result figcaption')].map((one) => one.textContent)"
            assert tab.value(captions)[:2] == [label, label]
        loaded = "[...document.images].every((one) => one.complete && one.naturalWidth)"
        tab.value("for (const one of document.images) one.loading = 'eager'")
        tab.wait(loaded)
        assert tab.value("document.querySelectorAll('#held img').length") == 4
        assert tab.value("document.documentElement.scrollWidth") <= 360
        tab.value(f"{button(f'Remove {HOSTILE}')}.focus()")
        for _ in range(2):
            tab.press("Enter")
        tab.wait(f"document.getElementById('teach-said').textContent === '“{HOSTILE}” is forgotten.'")
        assert device.classes == ("my key",)
        assert tab.value("document.querySelectorAll('#held li').length") == 1
        assert tab.errors == []


def test_a_thing_is_taught_live_by_a_held_button_and_renamed(tmp_path, tab):
    """The browser's camera is Chromium's own: a green screen with a clock. The board's sees blue."""
    write_device(tmp_path / "state", own_network())
    blue = np.full((30, 40, 3), COLOURS["blue"], np.uint8)
    with page(tmp_path / "state", camera=lambda: blue) as (device, asked):
        for colour, label in (("red", "my cup"), ("blue", "my key")):
            assert asked.learn(picture(colour), label)[0] == 200
        tab.open(f"http://127.0.0.1:{asked.port}/", width=360, height=1400)
        tab.wait("!document.getElementById('open').hidden")
        tab.value("document.getElementById('live-start').click()")
        tab.wait("document.querySelector('#guess strong')?.textContent.startsWith('my ')")
        assert tab.value("document.getElementById('video').videoWidth") > 0
        tab.mouse("mousePressed", "#hold")  # which has no name to teach
        tab.mouse("mouseReleased", "#hold")
        tab.wait("document.activeElement.id === 'label'")
        tab.write("a screen")
        assert tab.text("#hold") == "Hold to teach “a screen”"
        tab.mouse("mousePressed", "#hold")
        tab.wait("document.getElementById('live-said').textContent === 'Learned 3 pictures of “a screen”.'")
        tab.mouse("mouseReleased", "#hold")
        tab.wait("document.querySelector('#guess strong')?.textContent === 'a screen'")
        assert device.classes == ("a screen", "my cup", "my key")
        assert 3 <= len(list((tmp_path / "state" / "learned" / "a screen").iterdir())) <= 5
        tab.value("document.getElementById('live-stop').click()")
        tab.wait("!document.getElementById('board-start').hidden")
        assert tab.value("document.getElementById('video').srcObject") is None

        tab.value("document.getElementById('board-start').click()")
        tab.wait("document.querySelector('#guess strong')?.textContent === 'my key'")
        assert tab.value("document.getElementById('frame').naturalWidth") == 40

        tab.value(
            "[...document.querySelectorAll('#held button')].find((one) => one.ariaLabel === 'Rename my key').click()"
        )
        tab.write(HOSTILE)
        assert tab.value("document.documentElement.scrollWidth") <= 360
        tab.press("Enter")
        tab.wait(f"document.getElementById('teach-said').textContent === '“my key” is called “{HOSTILE}”.'")
        tab.wait(f"document.querySelector('#guess strong')?.textContent === '{HOSTILE}'")
        assert device.classes == (HOSTILE, "a screen", "my cup")
        assert tab.errors == []
