"""The page in a real browser, from ``file://``. ``--junitxml=FILE`` keeps how long it took."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from browser import NAMES, Browser, find_chromium
from fabricate_run import addresses, fabricate_run

from vlaser_gym.evaluation.report import write_report
from vlaser_gym.evaluation.video import video_folder

WHERE = addresses(layouts=24, trials=2)
LOST = WHERE[:3]
FILTER = """(name, value) => {
    const begun = performance.now();
    const field = document.querySelector(`[name=${name}]`);
    field.value = value;
    field.dispatchEvent(new Event('change', { bubbles: true }));
    const drawn = (then) => requestAnimationFrame(() => requestAnimationFrame(then));
    return new Promise((done) => drawn(() => done(performance.now() - begun)));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Locally the tests skip without a browser; in CI they fail."""
    executable = find_chromium()
    if executable is None:
        message = f"no Chromium found ({', '.join(NAMES)}): install one, e.g. apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with Browser(executable) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of 96 episodes with a video of its first, and a comparison."""
    folder = tmp_path_factory.mktemp("report")
    outcomes = {x: x.layout_index % 3 == 0 for x in WHERE}
    a = fabricate_run(folder / "a", outcomes, lost=[x for x in LOST if not outcomes[x]], states=True)
    b = fabricate_run(folder / "b", {x: x.layout_index % 4 == 0 for x in WHERE}, states=True)
    clip = make_video(folder / "clip.mp4")
    return {
        "run": write_report(a, {WHERE[0]: clip}),
        "pair": write_report(a, {WHERE[0]: clip}, b, compare_videos={WHERE[0]: clip}),
        "clip": clip,
    }


def make_video(file: Path) -> Path:
    """13 frames at 5 per second: the initial state and 12 steps; frame k has brightness 20 k."""
    writer = imageio_ffmpeg.write_frames(str(file), (64, 64), fps=5, codec="libx264", pix_fmt_out="yuv420p")
    writer.send(None)
    for k in range(13):
        writer.send(np.full((64, 64, 3), 20 * k, np.uint8))
    writer.close()
    return file


def shown(browser: Browser) -> list[str]:
    """Addresses of the tiles, in order."""
    return browser.evaluate("[...document.querySelectorAll('#tiles .tile')].map((tile) => tile.title)")


def choose(browser: Browser, name: str, value: str) -> float:
    """Milliseconds that a filter takes until its result is on the screen."""
    return browser.evaluate(f"({FILTER})({name!r}, {value!r})")


def first_video(browser: Browser, script: str) -> Any:
    return browser.evaluate(f"((video) => {script})(document.querySelector('video'))")


def test_96_episodes_open_within_a_second(
    browser: Browser, pages: dict[str, Path], record_testsuite_property: Callable[[str, object], None]
) -> None:
    # The best of three: what else the machine does is not the page's doing.
    seconds = [browser.open(pages["run"]) for _ in range(3)]
    record_testsuite_property("opening_seconds", [round(time, 3) for time in seconds])
    assert min(seconds) < 1.0
    assert shown(browser) == [str(x) for x in WHERE]
    assert browser.evaluate("document.querySelector('#shown').textContent") == "96 of 96 episodes"
    assert browser.errors == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "about", "blob"}, "it works offline"


def test_filters_and_order(
    browser: Browser, pages: dict[str, Path], record_testsuite_property: Callable[[str, object], None]
) -> None:
    browser.open(pages["run"])
    took = [choose(browser, "task", "widowx_stack_cube")]
    assert shown(browser) == [str(x) for x in WHERE if x.task == "widowx_stack_cube"]
    took.append(choose(browser, "outcome", "success"))
    assert shown(browser) == [str(x) for x in WHERE if x.task == "widowx_stack_cube" and x.layout_index % 3 == 0]
    took.append(choose(browser, "outcome", "lost"))
    assert shown(browser) == []
    assert browser.evaluate("document.querySelector('#none').hidden") is False
    took.append(choose(browser, "task", ""))
    assert shown(browser) == [str(x) for x in LOST if x.layout_index % 3]
    browser.evaluate("document.querySelector('[type=reset]').click()")
    browser.wait("document.querySelectorAll('.tile').length === 96")
    took.append(choose(browser, "sort", "first"))
    steps = browser.evaluate(
        "JSON.parse(document.getElementById('data').textContent).episodes"
        ".reduce((all, e) => ({ ...all, [e.id]: e.sides[0].first ?? 1e9 }), {})"
    )
    order = [steps[address] for address in shown(browser)]
    assert order == sorted(order)
    assert order[0] < order[-1]
    took.append(choose(browser, "reached", "ever_grasped"))
    reached = [x for x in WHERE if x.layout_index % 4 == 1 and x.layout_index % 3 and x not in LOST]
    assert sorted(shown(browser)) == sorted(map(str, reached))
    record_testsuite_property("filtering_milliseconds", [round(time) for time in took])
    assert max(took) < 1000
    assert browser.errors == []


def test_the_address_holds_the_filters(browser: Browser, pages: dict[str, Path]) -> None:
    """A link with filters shows the same episodes again; these runs hold no states, but records tell what was lost."""
    browser.open(pages["run"])
    choose(browser, "failure", "lost_again")
    choose(browser, "task", "widowx_carrot_on_plate")
    chosen = [str(x) for x in LOST if x.layout_index % 3 and x.task == "widowx_carrot_on_plate"]
    assert shown(browser) == chosen
    address = browser.evaluate("location.hash")
    assert address == "#?task=widowx_carrot_on_plate&failure=lost_again"
    browser.open(pages["run"], address)
    assert shown(browser) == chosen
    browser.evaluate("document.querySelector('[type=reset]').click()")
    browser.wait("location.hash === ''")
    assert browser.errors == []


def test_a_click_plays_the_video(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"])
    browser.evaluate("document.querySelector('.tile').click()")
    browser.wait("document.querySelector('video')?.readyState >= 2")
    assert browser.evaluate("document.querySelector('#player').open") is True
    assert browser.evaluate("document.querySelector('#player-instruction').textContent") == "put carrot on plate"
    assert first_video(browser, "video.duration") == pytest.approx(13 / 5, abs=0.01)
    browser.evaluate("document.querySelector('#play').click()")
    browser.wait("document.querySelector('video').currentTime > 1")
    browser.wait("Number(document.querySelector('#step').value) >= 5")
    assert browser.errors == []


def test_the_player_says_what_the_robot_was_told_at_the_shown_step(browser: Browser, tmp_path: Path) -> None:
    """The second stage begins at step 4 of A and at step 8 of B."""
    (where,) = addresses(["google_robot_place_apple_in_closed_top_drawer"], layouts=1)
    first, second = "open top drawer", "place apple into top drawer"
    a, b = (
        fabricate_run(
            tmp_path / name, {where: False}, states=True, told={where: [first] * begin + [second] * (13 - begin)}
        )
        for name, begin in (("a", 4), ("b", 8))
    )
    browser.open(write_report(a, {}, b, compare_videos={}))
    browser.evaluate("document.querySelector('.tile').click()")
    said = "document.querySelector('#player-instruction').textContent"
    assert browser.evaluate(said) == first
    for step, expected in ((3, first), (4, f"A: {second} / B: {first}"), (7, f"A: {second} / B: {first}"), (8, second)):
        browser.evaluate(
            f"(field => {{ field.value = {step}; field.dispatchEvent(new Event('input')); }})"
            "(document.querySelector('#step'))"
        )
        assert browser.evaluate(said) == expected, step
    assert browser.errors == []


def test_steps_pictures_and_chunks_agree(browser: Browser, pages: dict[str, Path]) -> None:
    """Moving to a step shows the frame after that step; chunk boundaries are where the agent decided."""
    browser.open(pages["run"])
    browser.evaluate("document.querySelector('.tile').click()")
    browser.wait("document.querySelector('video')?.readyState >= 2")
    for step, chunk in ((0, 1), (3, 1), (4, 1), (5, 2), (9, 3), (12, 3)):
        browser.evaluate(
            f"(() => {{ const s = document.querySelector('#step'); s.value = {step};"
            " s.dispatchEvent(new Event('input')); })()"
        )
        browser.wait("!document.querySelector('video').seeking && document.querySelector('video').readyState >= 2")
        grey = first_video(
            browser,
            "{ const c = document.createElement('canvas'); c.width = c.height = 1; const x = c.getContext('2d');"
            " x.drawImage(video, 0, 0, 1, 1); return x.getImageData(0, 0, 1, 1).data[0]; }",
        )
        assert grey == pytest.approx(20 * step, abs=9), f"frame of step {step}"
        text = browser.evaluate("document.querySelector('#step-text').textContent")
        assert text == f"step {step} of 12, chunk {chunk} of 3"
    bands = browser.evaluate(
        "[...document.querySelectorAll('rect.chunk')].map((r) => [r.x, r.width].map((v) => v.baseVal.value))"
    )
    assert bands == [[0, 4], [8, 4]], "every other chunk"


def test_other_episodes_show_the_command(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"])
    browser.evaluate("{ window.told = []; console.info = (text) => window.told.push(text); }")
    browser.evaluate("document.querySelectorAll('.tile')[1].click()")
    browser.wait("document.querySelector('.missing code') !== null")
    command = browser.evaluate("document.querySelector('.missing code').textContent")
    assert command.startswith("python -m vlaser_gym.render run=")
    assert command.endswith(f" episodes={WHERE[1]}")
    told = browser.evaluate("window.told")
    assert len(told) == 1
    assert told[0].startswith("No fault: the video file:///")
    assert told[0].endswith(f"has not been rendered. To make it: {command}")
    place = browser.evaluate("document.querySelector('.missing .place').textContent")
    assert place.startswith("Looked for at ")
    assert place.removesuffix(", beside this page.").rsplit("/", 1)[-1] in told[0]
    assert browser.evaluate("document.querySelectorAll('.lane').length") > 4, "its flags are there without a video"
    browser.evaluate("document.querySelector('#next').click()")
    assert browser.evaluate("document.querySelector('#player-title').textContent") == "carrot on plate, grid:1, trial 0"
    browser.evaluate("document.querySelector('#close').click()")
    assert browser.evaluate("document.querySelector('#player').open") is False
    assert browser.errors == []


def test_a_video_rendered_later_is_found(
    browser: Browser, tmp_path: Path, pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = write_report(fabricate_run(tmp_path / "run", dict.fromkeys(WHERE[:2], True), states=True))
    folder = video_folder(tmp_path / "run")
    folder.mkdir(parents=True)
    name = "widowx_carrot_on_plate.default.grid-0000.trial-0.success.mp4"
    (folder / name).write_bytes(pages["clip"].read_bytes())
    browser.open(page)
    browser.evaluate("document.querySelector('.tile').click()")
    browser.wait("document.querySelector('video')?.readyState >= 2")


def test_a_link_opens_its_episode(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], f"#{WHERE[5]}")
    assert browser.evaluate("document.querySelector('#player').open") is True
    assert browser.evaluate("document.querySelector('#player-title').textContent") == "carrot on plate, grid:2, trial 1"


def test_two_runs_side_by_side(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["pair"])
    for relation, wanted in {
        "a": [x for x in WHERE if x.layout_index % 3 == 0 and x.layout_index % 4],
        "b": [x for x in WHERE if x.layout_index % 3 and x.layout_index % 4 == 0],
        "both": [x for x in WHERE if x.layout_index % 12 == 0],
        "neither": [x for x in WHERE if x.layout_index % 3 and x.layout_index % 4],
    }.items():
        choose(browser, "relation", relation)
        assert shown(browser) == [str(x) for x in wanted]
    choose(browser, "relation", "")
    browser.evaluate("document.querySelector('.tile').click()")
    ready = "[...document.querySelectorAll('video')].filter((v) => v.readyState >= 2).length === 2"
    browser.wait(ready)
    browser.evaluate("document.querySelector('#play').click()")
    browser.wait("[...document.querySelectorAll('video')].every((v) => v.currentTime > 0.6)")
    times = browser.evaluate("[...document.querySelectorAll('video')].map((v) => v.currentTime)")
    assert times[0] == pytest.approx(times[1], abs=0.3)
    assert browser.errors == []


def test_it_can_be_read_by_everybody(browser: Browser, pages: dict[str, Path]) -> None:
    """Names for what can be pressed and seen, and contrast of at least 4.5 (WCAG AA) in light and dark."""
    contrast = """(() => {
        const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255;
            return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = (e) => { for (; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (!colour.startsWith('rgba') || !colour.endsWith(' 0)')) return parse(colour); }
            return [255, 255, 255]; };
        const texts = [...document.querySelectorAll('h1, h2, h3, td, th, p, li, label, .badge, .tile-meta, .interval')]
            .filter((e) => e.checkVisibility() && e.textContent.trim());
        return Math.min(...texts.map((e) => {
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })); })()"""
    for page in (pages["run"], pages["pair"]):
        browser.open(page)
        for theme in ("light", "dark"):
            browser.evaluate(f"document.documentElement.dataset.theme = {theme!r}")
            assert browser.evaluate(contrast) >= 4.5, theme
    unnamed = (
        "[...document.querySelectorAll('button, select, input')].filter((e) => !(e.ariaLabel || e.textContent.trim()))"
    )
    assert browser.evaluate(f"{unnamed}.length") == 0
    assert browser.evaluate("[...document.querySelectorAll('svg.chart')].every((s) => s.getAttribute('aria-label'))")
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    try:
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out on a phone"
    finally:
        browser.call("Emulation.setDeviceMetricsOverride", width=1360, height=900, deviceScaleFactor=1, mobile=False)
