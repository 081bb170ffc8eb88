"""The pages in a real browser: the report, and a real MLflow server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find
from PIL import Image
from store import Written, record

from analysis import pipeline
from sweep.core.record import Outcome

NEEDED = os.environ.get("PARETUNE_NEEDS_BROWSER") == "1"  # .ci/run installs one
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find() is None and not NEEDED, reason="no Chromium: apt-get install chromium"),
]
ATTACK = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
BLUE, LIGHTER_BLUE, VERMILLION = (0, 0x72, 0xB2), (0x2B, 0x93, 0xD8), (0xD5, 0x5E, 0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    made = Written(tmp_path_factory.mktemp("store"))
    runs = [
        record(setting, seed, score + 0.01 * seed, memory, train_seconds=9.0)
        for setting, score, memory in (("fft", 0.9, 60e6), ("lora", 0.895, 40e6))
        for seed in (0, 1)
    ]
    made.study("seen", [*runs, record(ATTACK, 0, outcome=Outcome.OOM, reason=ATTACK)])
    options = {
        "study": "seen", "source": None, "compare": None, "threshold": 0.99, "margin": None, "direction": None,
        "memory_metric": "max_memory_allocated", "allow_different": [], "cluster": None, "price": 2, "pdf": True,
        "out": str(made.folder / "report"), "tracking": {"uri": made.uri, "experiment": made.experiment},
    }  # fmt: skip
    pipeline.answer(options)
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def colours(path: Path) -> dict[tuple[int, int, int], int]:
    image = Image.open(path).convert("RGB")
    return {colour: count for count, colour in image.getcolors(image.width * image.height)}


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (420, True)])
def test_the_report_shows_its_charts_and_nothing_goes_wrong(
    written: Written, browser: Browser, tmp_path: Path, width: int, dark: bool
):
    browser.errors.clear()
    browser.open((written.folder / "report/report.html").as_uri(), width=width, dark=dark)
    browser.wait_for("document.readyState == 'complete' && document.querySelectorAll('figure svg').length >= 3")
    seen = colours(browser.screenshot(tmp_path / "report.png"))
    assert seen.get(LIGHTER_BLUE if dark else BLUE, 0) > 8  # the marks of the main chart: pale, with an edge
    assert seen.get(VERMILLION, 0) > 8
    assert max(seen, key=seen.get) == ((0x14, 0x18, 0x1C) if dark else (255, 255, 255))
    assert browser.run("document.documentElement.scrollWidth") <= width  # tables scroll, the page does not
    assert browser.run("document.title") == "seen – paretune"
    assert browser.run("document.body.innerText").count("<img src=x") >= 2
    assert browser.errors == []
    assert browser.outside == []


def test_a_click_on_a_heading_sorts(written: Written, browser: Browser):
    browser.open((written.folder / "report/report.html").as_uri())
    browser.wait_for("document.querySelectorAll('#settings th button').length > 0")
    first = "document.querySelector('#settings tbody tr td').innerText"
    heading = "[...document.querySelectorAll('#settings th button')].find(b => b.innerText.startsWith('exact match'))"
    browser.run(f"{heading}.click()")
    assert browser.run(first).startswith("lora")
    browser.run(f"{heading}.click()")
    assert browser.run(first).startswith("fft")


@pytest.fixture(scope="module")
def links(written: Written) -> Iterator[list[str]]:
    """What `make ui` prints, its server running."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-u",
        "-m",
        "analysis.ui",
        "--store",
        str(written.folder / "mlflow.db"),
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    found: list[str] = []
    for line in server.stdout:
        found += re.findall(r"http://\S+/#/\S+", line)
        if "Ctrl-C" in line:
            break
    yield found
    server.terminate()
    assert server.wait(20) == 0
    server.stdout.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0  # no server is left behind


@pytest.mark.long
def test_mlflow_opens_at_score_against_memory(links: list[str], browser: Browser, tmp_path: Path):
    browser.open(links[0], width=1600, height=1000)
    browser.wait_for("document.querySelectorAll('.js-plotly-plot .point').length >= 4")
    text = browser.run("document.body.innerText")
    assert "max_memory_allocated" in text
    assert "fft · seed 0" in text
    fills = browser.run("[...document.querySelectorAll('.js-plotly-plot .point')].map(p => getComputedStyle(p).fill)")
    assert {"rgb(0, 114, 178)", "rgb(213, 94, 0)"} <= set(fills)  # one colour per variant
    assert browser.screenshot(tmp_path / "view.png").stat().st_size > 10_000


@pytest.mark.long
def test_the_study_s_row_opens_with_the_answer(links: list[str], browser: Browser):
    browser.open(links[1], width=1400, height=1000)
    browser.wait_for("document.body.innerText.includes('Use lora: exact_match 0.9')")
    browser.wait_for("document.body.innerText.includes('selected.verdict')")
    assert browser.run("document.querySelector('h1, h2').innerText") == "seen: use lora, 38.1 MiB"
    assert "selectedlora" in re.sub(r"[\s:]+", "", browser.run("document.body.innerText"))


def test_the_report_is_shown_among_the_artifacts(links: list[str], browser: Browser):
    path = links[1].replace("?", "/artifacts/report/report.html?")
    browser.open(path, width=1400, height=1000)
    browser.wait_for("document.querySelector('iframe') && document.body.innerText.includes('report.html')")
