"""A device's page in a real browser: a thing is taught, known again, and forgotten; hostile names stay text."""

import pytest
from chromium import browser
from device_pages import own_network, page, picture, write_device

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"


def teach(tab, label, *files):
    tab.run("document.getElementById('label').focus(); document.getElementById('label').select()")
    tab.write(label)
    tab.choose("#teach input[multiple]", *files)
    tab.until(f"document.getElementById('teach-said').textContent === 'Learned {len(files)} pictures of “{label}”.'")


def test_taught_known_again_and_forgotten(tmp_path):
    for colour in ("red", "blue"):
        for seed in range(3):
            (tmp_path / f"{colour}-{seed}.jpg").write_bytes(picture(colour, seed, size=700, kind="JPEG"))
    write_device(tmp_path / "state", own_network())
    with page(tmp_path / "state") as (device, asked), browser(tmp_path / "profile") as tab:
        tab.size(360, 740)
        tab.open(f"http://127.0.0.1:{asked.port}/")
        tab.until("!document.getElementById('open').hidden")
        assert tab.run("document.querySelector('h1').textContent") == "Teach <b>board</b>"
        assert "Pictures stay on this device" in tab.run("document.querySelector('header').innerText")
        teach(tab, HOSTILE, tmp_path / "red-0.jpg", tmp_path / "red-1.jpg")
        assert "It knows one thing" in tab.run("document.getElementById('notice').innerText")
        teach(tab, "my key", tmp_path / "blue-0.jpg", tmp_path / "blue-1.jpg")
        assert device.classes == (HOSTILE, "my key")
        for colour, label in (("blue", "my key"), ("red", HOSTILE)):
            tab.choose("#try input", tmp_path / f"{colour}-2.jpg")
            tab.until(f"document.querySelector('#result strong')?.textContent === '{label}'")
            captions = "[...document.querySelectorAll('#result figcaption')].map((one) => one.textContent)"
            assert tab.run(captions)[:2] == [label, label]
        loaded = "[...document.images].every((one) => one.complete && one.naturalWidth)"
        tab.run("for (const one of document.images) one.loading = 'eager'")
        tab.until(loaded)
        assert tab.run("document.querySelectorAll('#held img').length") == 4
        assert tab.run("document.documentElement.scrollWidth") <= 360
        tab.run("document.querySelector('#held button').focus()")
        for _ in range(2):
            tab.key("Enter", "\r")
        tab.until(f"document.getElementById('teach-said').textContent === '“{HOSTILE}” is forgotten.'")
        assert device.classes == ("my key",)
        assert tab.run("document.querySelectorAll('#held li').length") == 1
        assert tab.errors == []
