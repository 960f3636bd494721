"""report.html in headless Chromium: from disk with the network cut off, sorted, filtered, hovered, in both colour schemes and at both widths."""

import csv
import json
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

from diffbench.report import live, page
from diffbench.report.reading import read
from diffbench.results import rows
from diffbench.store.artefacts import Store
from tests.helpers import made_rows
from tests.helpers.made_rows import FD

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<img src=x onerror=alert(1)>"
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a run with hostile names, pictures, a film and losses."""
    place = tmp_path_factory.mktemp("browser")
    folder = made_rows.folder(place / "run", made_rows.rows(backbones=("unet", HOSTILE)), pictures=True)
    store = Store(place / "store")
    store.prepare()
    plan = json.loads((folder / "plan.json").read_text())
    plan["stages"] = {"1" * 64: {"name": "train", "label": f"{HOSTILE}, linear", "parents": {}}}
    (folder / "plan.json").write_text(json.dumps(plan))
    store.publish("train", "1" * 64, {}, {
        "facts.json": json.dumps({"losses": [1.0, 0.5, 0.25], "steps_per_loss": 10, "train_loss": 0.25, "compiled": False}).encode()})
    _film(folder / "samples" / f"{0:012x}-trajectory.png")
    page.write(read([folder]), folder / page.FILE, store)
    return folder


def _film(path):
    from PIL import Image, PngImagePlugin

    from diffbench.report import grids

    note = PngImagePlugin.PngInfo()
    note.add_text(grids.FRAME_COUNT, "4")
    Image.new("L", (4 * 34 + 2, 6 * 34 + 2), 90).save(path, pnginfo=note)


def until(shown, expression, seconds=20):
    """Waits for an expression to be true; the page's policy forbids playwright's own way."""
    end = time.monotonic() + seconds
    while True:
        try:
            if shown.evaluate(expression):
                return
        except Exception as error:                        # a live page that loads itself anew has no context for a moment
            if "navigation" not in str(error):
                raise
        assert time.monotonic() < end, expression
        time.sleep(0.05)


class Opened:
    """A page, and what its console said."""

    def __init__(self, browser, path, width=1400, scheme="light"):
        self.context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}, accept_downloads=True)
        self.page, self.said = self.context.new_page(), []
        self.page.on("console", lambda message: self.said.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        since = time.perf_counter()
        self.page.goto(path.as_uri())
        self.seconds = time.perf_counter() - since

    def scroll(self):
        """Through the whole page, so that every figure is drawn."""
        for name in self.page.eval_on_selector_all("[data-plot]", "all => all.map(one => one.dataset.plot)"):
            self.page.locator(f"[data-plot={name}]").scroll_into_view_if_needed()
            self.page.wait_for_selector(f"[data-plot={name}] .main-svg")

    def column(self, table, index):
        return self.page.eval_on_selector_all(f"table[data-table={table}] tbody tr:not([hidden])", f"rows => rows.map(row => row.cells[{index}].textContent.trim())")


@pytest.fixture
def opened(browser, written):
    found = Opened(browser, written / "report.html")
    yield found
    found.context.close()


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_from_disk_without_a_network_an_error_or_a_scroll_bar(browser, written, scheme, width):
    found = Opened(browser, written / "report.html", width, scheme)
    found.scroll()
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 23, 27)")
    assert found.said == []
    found.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(browser, written, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here: pip install axe-playwright-python")
    script = Path(axe.__file__).parent / "axe.min.js"
    found = Opened(browser, written / "report.html", scheme=scheme)
    found.scroll()
    found.page.evaluate(script.read_text())               # not as a tag: the page's policy lets none in
    told = found.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert told["passes"] and [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in told["violations"]] == []
    found.context.close()


def test_sorting_by_mouse_and_by_keyboard(opened):
    head = opened.page.locator("table[data-table=quality] thead th").filter(has_text=f"{FD}_debiased")
    at = head.evaluate("head => head.cellIndex")
    head.locator("button").click()
    values = [float(text.split()[0]) for text in opened.column("quality", at)]
    assert head.get_attribute("aria-sort") == "ascending" and values == sorted(values)
    head.locator("button").focus()
    opened.page.keyboard.press("Enter")
    values = [float(text.split()[0]) for text in opened.column("quality", at)]
    assert head.get_attribute("aria-sort") == "descending" and values == sorted(values, reverse=True)
    opened.page.locator("table[data-table=quality] thead button").filter(has_text="scheduler").click()
    assert opened.page.locator("table[data-table=quality] [aria-sort]").count() == 1


def test_a_filter_holds_for_tables_samples_and_figures(opened):
    opened.page.select_option("#filters select >> nth=0", HOSTILE)
    assert opened.page.inner_text("#count") == "8 of 16 configurations"
    assert set(opened.column("quality", 0)) == set(opened.column("throughput", 0)) == {HOSTILE}
    assert opened.page.locator(".grids figure:visible").count() == 8
    opened.page.fill("#text", "ddpm 1.5")
    assert opened.page.inner_text("#count") == "1 of 16 configurations"
    opened.scroll()
    points = opened.page.evaluate("document.querySelector('[data-plot=scatter]').data.filter(t => t.mode === 'markers').flatMap(t => t.x).length")
    assert points == 1
    opened.page.click("#filters button[type=reset]")
    until(opened.page, "document.querySelector('#count').textContent === '16 of 16 configurations'")


def test_the_front_is_of_what_no_other_beats(opened, written):
    opened.scroll()
    front = opened.page.evaluate("(() => { const t = document.querySelector('[data-plot=scatter]').data[0]; return t.x.map((x, i) => [x, t.y[i]]); })()")
    found = page.data.of_sheets(read([written]), page.data.configurations(read([written])))[0]["entries"]
    cost = {c["c"]: 1000 / c["rate"] for c in page.data.of_costs(read([written]), page.data.configurations(read([written])))}
    points = [(cost[c], e["value"]) for c, e in found.items()]
    best = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
    assert [tuple(p) for p in front] == sorted(best)


def test_hovering_and_arrow_keys_tell_a_point(opened):
    plot = opened.page.locator("[data-plot=scatter]")
    plot.scroll_into_view_if_needed()
    opened.page.wait_for_selector("[data-plot=scatter] .points path")
    box = opened.page.locator("[data-plot=scatter] .points path").first.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2 - 30, box["y"] + box["height"] / 2)
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    opened.page.wait_for_selector("[data-plot=scatter] .hoverlayer .hovertext")
    opened.page.locator("[data-plot=scatter]").focus()
    told = set()
    for _ in range(16):
        opened.page.keyboard.press("ArrowRight")
        told.add(opened.page.inner_text("[data-told=scatter]"))
    assert len(told) == 16 and any(HOSTILE in text for text in told)


@pytest.mark.parametrize("name", ["scatter", "nfe", "guidance"])
def test_enter_on_a_point_leads_to_its_row_and_back(opened, name):
    opened.scroll()
    opened.page.locator(f"[data-plot={name}]").focus()
    opened.page.keyboard.press("Enter")
    assert "#row" not in opened.page.url, "no point is chosen"
    opened.page.keyboard.press("ArrowRight")
    told = opened.page.inner_text(f"[data-told={name}]").rpartition(":")[0]
    opened.page.keyboard.press("Enter")
    target = opened.page.locator("tr:target")
    labels = json.loads(opened.page.locator("#data").text_content())["labels"]
    assert labels[int(target.get_attribute("data-c"))] == told
    until(opened.page, "(() => { const box = document.querySelector('tr:target').getBoundingClientRect(); return box.top > 0 && box.bottom < innerHeight; })()")
    opened.page.go_back()
    assert opened.page.locator("tr:target").count() == 0


def test_a_click_on_a_point_leads_to_its_row(opened):
    plot = opened.page.locator("[data-plot=scatter]")
    plot.scroll_into_view_if_needed()
    opened.page.wait_for_selector("[data-plot=scatter] .points path")
    opened.page.locator("[data-plot=scatter] .points path").first.hover(force=True)
    opened.page.wait_for_selector("[data-plot=scatter] .hoverlayer .hovertext")
    said = opened.page.text_content("[data-plot=scatter] .hoverlayer .hovertext")
    opened.page.mouse.down()
    opened.page.mouse.up()
    until(opened.page, "document.querySelector('tr:target') !== null")
    labels = json.loads(opened.page.locator("#data").text_content())["labels"]
    shown = re.sub(r"\s+", "", said)
    assert re.sub(r"\s+", "", labels[int(opened.page.locator("tr:target").get_attribute("data-c"))]) in shown


def test_a_hostile_name_is_text_everywhere(opened):
    opened.scroll()
    assert opened.page.locator("img[src=x]").count() == 0 and opened.said == []
    legend = opened.page.evaluate("document.querySelector('[data-plot=guidance]').textContent")
    assert HOSTILE in legend
    assert HOSTILE in opened.page.inner_text("table[data-table=quality]")


def test_another_metric_redraws_the_figures(opened):
    opened.scroll()
    opened.page.select_option("#metric", label="class_accuracy (higher is better)")
    opened.page.locator("[data-plot=scatter]").scroll_into_view_if_needed()
    until(opened.page, "document.querySelector('[data-plot=scatter]').layout.yaxis.title.text.startsWith('class_accuracy')")
    opened.page.select_option("#cost", "nfe")
    until(opened.page, "document.querySelector('[data-plot=scatter]').layout.xaxis.title.text.startsWith('network')")


@pytest.mark.parametrize("name", ["quality", "throughput", "scatter", "effects", "nfe", "guidance", "curves"])
def test_the_data_of_each_table_and_figure_can_be_had(opened, written, name, tmp_path):
    with opened.page.expect_download() as download:
        opened.page.locator(f"[data-csv={name}]").click()
    download.value.save_as(tmp_path / "found.csv")
    head, *lines = csv.reader((tmp_path / "found.csv").read_text().splitlines())
    assert lines and all(len(line) == len(head) for line in lines)
    if name == "quality":
        means = {m.debiased for sheet, _ in read([written]).sheets for m in sheet.means.values()}
        assert {float(line[head.index("value")]) for line in lines} == means


def test_a_film_plays_by_its_slider_and_its_button(opened):
    film = opened.page.locator(".film")
    film.scroll_into_view_if_needed()
    where = "document.querySelector('.film img').style.transform"
    last = opened.page.evaluate(where)
    film.locator("input").fill("1")
    assert opened.page.evaluate(where) != last
    film.locator("button").click()
    until(opened.page, f"{where} === '{last}'")
    until(opened.page, "document.querySelector('.film button').textContent === 'Play'")


def test_the_scheme_can_be_chosen(opened):
    opened.page.click("#scheme")
    assert opened.page.get_attribute("#scheme", "aria-pressed") == "true"
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 27)"


def test_a_run_of_500_cells_opens_in_two_seconds(browser, tmp_path):
    made = made_rows.rows(backbones=[f"b{i}" for i in range(21)], scales=(1.0, 3.0))
    folder = made_rows.folder(tmp_path / "run", made, pictures=True)
    store = Store(tmp_path / "store")
    page.write(read([folder]), folder / page.FILE, store)
    found = [Opened(browser, folder / page.FILE) for _ in range(3)]
    assert len(made) > 500 and (folder / page.FILE).stat().st_size < 15e6
    assert min(one.seconds for one in found) < 2, [one.seconds for one in found]
    found[0].scroll()
    assert found[0].said == [] and re.match(r"The best 12 of 42", found[0].page.inner_text("[data-told=nfe]"))
    for one in found:
        one.context.close()


def test_a_live_page_shows_a_new_row_and_keeps_what_the_reader_set(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "store"))
    made = made_rows.rows(others=False)
    folder = made_rows.folder(tmp_path / "run", made[:-3])
    with live.server(folder, 0) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        shown = browser.new_page()
        shown.goto(f"http://127.0.0.1:{served.server_address[1]}/")
        shown.select_option("#filters select >> nth=0", "dit")
        assert shown.inner_text("#count") == "7 of 15 configurations"
        for row in made[-3:]:
            (folder / rows.RECORDS / f"{row['cell_id']}.json").write_text(json.dumps(row))
        until(shown, "document.querySelector('#count').textContent === '8 of 16 configurations'")
        served.shutdown()
        served.server_close()
        until(shown, "document.querySelector('#live').textContent.startsWith('The server has stopped')")
        shown.close()
