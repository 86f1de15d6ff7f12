"""The app in a real browser, clicked through as a newcomer would, with a look at what is drawn."""

import re
import shutil
from collections.abc import Iterator

import pytest

from recipes.space.embedded import load_network, load_stage
from recipes.space.live_race import DEFAULT_RIVALS, run_race
from tests.recipes.space_server import serve


pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 120_000  # ms; each step takes seconds of a core, which others may use as well
# Pixels of a picture that are coloured, as lines are, and neither paper nor ink.
COLOURED = """image => {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4)
        count += Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60;
    return count;
}"""

# Notes every state of table and curves on the way, which may be there for a moment only.
WATCH = """() => {
    window.seen = {headings: new Set(), lengths: new Set()};
    new MutationObserver(() => {
        const heading = document.querySelector("#standing th");
        if (heading) window.seen.headings.add(heading.innerText);
        const line = document.querySelector("#loss svg .plot_marks path");
        if (line) window.seen.lengths.add(line.getAttribute("d").split(/[ML]/).length - 1);
    }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


@pytest.fixture
def page(tmp_path) -> Iterator:
    """The app's page with nothing amiss on its console, neither now nor at the end."""
    sync_api = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("gradio")
    pytest.importorskip("matplotlib")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    complaints = []
    with serve(tmp_path / "space") as url, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        # what a page of gradio's asks of other hosts is none of the app's, and there may be no network
        page.route(
            lambda address: not address.startswith((url, "data:", "blob:")), lambda route: route.fulfill(body="")
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(url)
        yield page
        browser.close()
    assert not complaints


def lines_of(page, plot):
    """The number of points of each line that a plot draws."""
    paths = page.locator(f"#{plot} svg .plot_marks path").evaluate_all(
        "all => all.map(each => each.getAttribute('d'))"
    )
    return [len(re.findall("[ML]", path)) for path in paths]


def wait_for(page, condition):
    """Until a condition holds; what is drawn comes a moment after what it is drawn from."""
    for _ in range(PATIENCE // 250):
        if condition():
            return
        page.wait_for_timeout(250)
    pytest.fail("what was waited for did not happen")


def text_of(page, part):
    return page.locator(f"#{part}").inner_text()


def test_a_newcomer_clicks_through(page):
    # a look is there without a click, and says what it shows
    picture = page.locator("#picture img")
    picture.wait_for()
    assert picture.evaluate(COLOURED) > 3000
    assert "λ, how large the update is." in page.content() and "μ, how directions are mixed." in page.content()
    assert "share of muon" in text_of(page, "summary")
    wait_for(page, lambda: lines_of(page, "sizes") == [20] and lines_of(page, "shares") == [20] * 3)
    assert {"adam", "sgd", "muon"} <= set(text_of(page, "shares").split())

    # the horizon moves
    before = picture.get_attribute("src")
    page.locator("#horizon input[type=range]").fill("12")
    wait_for(page, lambda: lines_of(page, "sizes") == [12] and picture.get_attribute("src") != before)

    # a race; curves grow, and end at the very figures that the functions give
    page.evaluate(WATCH)
    page.click("#start")
    wait_for(page, lambda: text_of(page, "verdict").strip())
    wait_for(page, lambda: lines_of(page, "loss") == lines_of(page, "accuracy") == [13] * 3)
    seen = page.evaluate("() => [[...window.seen.headings], [...window.seen.lengths]]")
    assert all(len(states) > 1 for states in seen), seen
    *_, end = run_race("l3rs-resnet-tiny-fashion", "ResNet", 12, 1, DEFAULT_RIVALS, "searched")
    cells = page.locator("#standing td").all_inner_texts()
    assert cells == [cell.strip() for line in end.table.splitlines()[2:] for cell in line.strip("| ").split("|")]
    assert {"L3RS", "Adam at 1e-3"} < set(cells) and text_of(page, "verdict").strip() == end.verdict
    assert all(name in text_of(page, "loss") for name in end.curves.optimizer.unique())

    # another L3RS brings its model and its horizon
    page.click("#l3rs input")
    page.get_by_role("option", name="l3rs-vit-tiny-fashion").click()
    horizon = load_network("l3rs-vit-tiny-fashion").config.num_training_steps
    wait_for(page, lambda: lines_of(page, "shares") == [horizon] * 2)
    assert page.locator("#model input").nth(1).is_checked()
    assert page.input_value("#horizon input[type=number]") == str(horizon)
    assert page.input_value("#layer input") == next(load_stage("ViT").model.named_parameters())[0]

    # one that is nowhere: a sentence, and no picture of something else
    page.fill("#l3rs input", "nobody/nothing")
    page.press("#l3rs input", "Enter")
    page.locator("#message").wait_for()
    assert "There is no folder 'nobody/nothing'" in text_of(page, "message")
    assert page.locator("#picture img").count() == 0
