"""The page about phones: headline, table and files; in a real browser it draws, switches, sorts and fits a phone."""

import csv
import json
import re
import shutil

import pytest
from bench_rows import GALAXY, PIXEL, make_phones, make_rows

from android_bench.report import figures, heat
from android_bench.report.page import headline, to_csv, write_report
from android_bench.result import Result

HOSTILE = '<script>alert("x")</script> <b>bold</b> \'"; $(rm -rf /) %{x} {{ 7*7 }} <!--<script> größer 测试\nline'
BARE = [
    Result(id="a", recipe="", device="P", device_kind="android"),
    Result(id="b", recipe="", device="P", device_kind="android", error="exit code 137: killed"),
    Result(id="a", recipe="", device="Q", device_kind="android", facts={"repetitions": [{}], "energy": {}}),
]


def rows_of(device, rows=None):
    return [row for row in rows or make_rows() if row.device == device]


def test_headline_is_the_fastest_that_keeps_accuracy():
    found = headline(rows_of("Pixel 7"))
    assert found["best"].id == "P90Q8" and found["missing"] == []
    assert round(found["points"], 1) == -0.7 and 2.7 < found["faster"] < 3
    slower = [row.replace(accuracy=0.89) if row.id == "P90Q8" else row for row in rows_of("Pixel 7")]
    assert headline(slower)["label"] == "Q8"  # P90Q8 lost more than a point


def test_headline_says_what_was_not_measured():
    rows = [row.replace(accuracy=None, facts=row.facts | {"accuracy_note": "no data"}) for row in rows_of("Galaxy A54")]
    found = headline(rows)
    assert found["kept"] is False and found["points"] is None
    assert found["missing"] == ["No accuracy: no data", "No energy: the phone was charging over USB (status 2)"]
    assert headline(BARE[1:2]) == {"best": None, "missing": ["exit code 137: killed"]}
    assert headline(BARE[:1])["missing"] == ["No run times in these rows"]


def test_files_beside_the_page(tmp_path):
    rows = make_rows()
    path = write_report(rows, tmp_path / "new" / "report.html", title="T")
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.csv", "report.html", "report.jsonl"]
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    assert [Result.from_json(line) for line in lines] == rows
    table = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
    assert len(table) == len(rows) and table[0]["fact maker"] == "Google" and table[0]["id"] == "C0"
    assert json.loads(table[0]["fact energy"])["source"] == "odpm"
    assert {line["fact emulated"] for line in table} == {"True", ""}


def test_csv_keeps_a_name_with_a_line_end_in_one_field():
    assert next(csv.DictReader(to_csv([BARE[0].replace(id=HOSTILE)]).splitlines(keepends=True)))["id"] == HOSTILE


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one or more rows"):
        write_report([], tmp_path / "r.html")


def body_of(page):
    return re.sub(r"<(script|style)>.*?</\1>", "", page.read_text(), flags=re.S)


def test_the_page_says_emulated_charging_throttled_and_failed(tmp_path):
    body = body_of(write_report(make_rows(), tmp_path / "r.html", title="T", about={"Data": "digits"}))
    for words in (
        '<span class="badge emulated">EMULATED</span>', "THIS COMPUTER", "not phone timings", "2 of 5",
        "the phone was charging over USB (status 2); 12 min needed", "power rails, ODPM", "shuffled with seed 7",
        "exit code 139: the process crashed (SIGSEGV)", "GPU took 294 of 318 nodes", "samsung/a54xnaxx", "digits",
        "minute 1: 187 µs (1.00×) · minute 5: 205 µs (1.10×) · minute 30: 249 µs (1.33×)", "Throttled in 4 of 30 runs",
        "78 %, unplugged, 27.4 °C", "4 × 1.80 + 2 × 2.35 + 2 × 2.85 GHz",
    ):  # fmt: skip
        assert words in body, words
    assert "None" not in body and "nan" not in body.lower().replace("nano", "")


def test_a_real_phone_carries_no_badge_of_an_emulated_one(tmp_path):
    rows = [row.replace(device_kind="android", facts={k: v for k, v in row.facts.items() if k != "emulated"})
            for row in make_rows(host=False)]  # fmt: skip
    body = body_of(write_report(rows, tmp_path / "r.html"))
    assert "EMULATED" not in body and '<span class="badge android">PHONE</span>' in body


def test_estimates_and_means_are_labelled(tmp_path):
    row = rows_of("Pixel 7")[1]
    row = row.replace(energy_source="level", latency_p50_us=None, latency_p5_us=None, latency_p95_us=None)
    row = row.replace(facts=row.facts | {"repetitions": [{"mean_us": 180.0}]})
    body = body_of(write_report([row], tmp_path / "r.html"))
    assert "rough estimate: battery percent" in body and "<small>mean</small>" in body and "a run (mean)" in body
    assert "this build of the tool prints no percentiles" in body


def test_charts_leave_out_what_was_not_measured():
    for chart in (figures.distributions, lambda rows, *_: figures.overview(rows, "µs", 1)):
        assert chart(BARE, "µs", 1) is None
    assert figures.trade_off(BARE, "time", "µs", 1) is None and heat.heat(BARE) is None
    galaxy = rows_of("Galaxy A54")
    assert figures.trade_off(galaxy, "energy", "µJ", 1e-6) is None
    names = [trace["name"] for trace in figures.trade_off(galaxy, "time", "µs", 1)["data"]]
    assert names == ["Pareto front", "energy not measured"]


def test_a_sustained_curve_with_odd_minutes_and_temperatures_by_kind(tmp_path):
    points = ((0.6, 40.0, 28.0), (5.3, 50.0, 31.5))
    curve = [{"minute": m, "p50_us": us, "celsius": {"battery": c}} for m, us, c in points]
    row = rows_of("Pixel 7")[1]
    row = row.replace(facts=row.facts | {"sustain": curve})
    assert heat.sustained(row, "µs", 1)["data"][1]["y"] == [28.0, 31.5]
    body = body_of(write_report([row], tmp_path / "r.html"))
    assert "minute 1: 40 µs (1.00×) · minute 5: 50 µs (1.25×) · minute 30: not reached" in body


def test_a_computer_without_thermal_readings_was_not_watched_for_throttling(tmp_path):
    row = rows_of("this computer")[0].replace(facts={"repetitions": [{"p50_us": 80.0, "throttled": None}]})
    body = body_of(write_report([row], tmp_path / "r.html"))
    assert "no thermal readings" in body and "0 of 1" not in body


def test_throttled_repetitions_are_marked():
    galaxy = rows_of("Galaxy A54")
    traces = {trace["name"]: trace for trace in figures.distributions(galaxy, "µs", 1)["data"]}
    assert traces["throttled"]["y"] == ["Q16"] * 2 + ["P90Q8"] * 2
    chart = heat.heat(galaxy)
    assert len(chart["layout"]["shapes"]) == 4 and chart["data"][-1]["name"] == "throttled"
    order = chart["data"][0]["x"]
    assert order == sorted(order) and len(order) == 60


def test_a_picture_that_is_cut_out_still_says_emulated(tmp_path):
    rows = make_rows()
    names = {trace["name"] for trace in figures.overview(rows, "µs", 1.0)["data"]}
    assert names == {"Pixel 7 (emulated)", "Galaxy A54 (emulated)", "this computer"}
    page = write_report(rows, tmp_path / "report.html").read_text()
    for words in ("\\u00b5s a run \\u00b7 Pixel 7 (emulated)", "\\u00b5s a run \\u00b7 this computer"):
        assert words in page


def test_few_points_have_their_names_beside_them_and_many_only_those_of_the_front():
    few = [Result(id=f"m{k}", recipe="", device="P", latency_p50_us=10.0 * 2**k, accuracy=0.9 - 0.05 * k)
           for k in range(5)]  # fmt: skip
    named = lambda rows: sum(map(bool, figures.trade_off(rows, "time", "µs", 1.0)["data"][1]["text"]))  # noqa: E731
    assert named(few) == 5
    assert named([row.replace(id=f"{row.id}{n}") for row in few for n in range(3)]) == 1


def test_why_there_is_no_memory_and_what_failed_is_on_the_page(tmp_path):
    facts = {"memory_note": "killed (exit code 137)", "failures": ["crashed (exit code 139)"],
             "failed_jobs": [{"kind": "sustain", "error": "crashed (exit code 139)", "log": None}]}  # fmt: skip
    row = Result(id="a", recipe="", device="P", device_kind="android", latency_p50_us=9.0, facts=facts)
    page = write_report([row], tmp_path / "report.html").read_text()
    assert 'title="killed (exit code 137)"' in page and "1 sustain job of a failed (crashed (exit code 139))" in page


def test_pareto_front_names_the_energy_interval():
    chart = figures.trade_off(rows_of("Pixel 7"), "energy", "µJ", 1e-6)
    cloud = chart["data"][1]
    assert cloud["x"][0] == pytest.approx(2.4 * 182)
    assert cloud["error_x"]["array"][0] == pytest.approx(0.06 * 2.4 * 182)


@pytest.fixture(scope="module")
def browser():
    binary = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with chromedriver here: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium here: pip install 'tfcompress[test]'")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def show(browser, page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")
    browser.get(page.as_uri())


def errors(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def visit_every_device(browser):
    """Click each tab; the number of charts that stayed empty."""
    return browser.execute_script(
        "document.querySelectorAll('.tabs button').forEach(tab => tab.click());"
        "return [...document.querySelectorAll('.chart')].filter(e => !e.querySelector('.main-svg')).length"
    )


PAGES = {
    "two phones": lambda: make_rows(),
    "one phone": lambda: make_rows([PIXEL], host=False),
    "twenty phones": lambda: make_rows(make_phones(20), repetitions=3),
    "nothing measured": lambda: BARE,
    "hostile names": lambda: [
        row.replace(id=f"{row.id} {HOSTILE}", recipe=HOSTILE, device=f"{row.device} {HOSTILE}",
                    error=row.error and HOSTILE,
                    facts=row.facts | {"delegate_note": HOSTILE, "soc": HOSTILE, "delegate_asked": HOSTILE})
        for row in make_rows([PIXEL, GALAXY])
    ],
}  # fmt: skip


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_fits_draws_everything_and_asks_nobody(browser, tmp_path, name, width):
    page = write_report(PAGES[name](), tmp_path / "r.html", title=name, about={"Machine": "x" * 90})
    show(browser, page, width)
    assert visit_every_device(browser) == 0
    drawn = browser.execute_script("return document.querySelectorAll('.chart').length")
    assert (drawn > 0) == (name != "nothing measured")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    too_wide = browser.execute_script(
        "return [...document.querySelectorAll('.main-svg, section, .pick')]"
        ".filter(e => e.getBoundingClientRect().right > window.innerWidth + 1).length"
    )
    assert too_wide == 0
    assert errors(browser) == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_hostile_names_are_shown_as_text(browser, tmp_path):
    page = write_report(PAGES["hostile names"](), tmp_path / "r.html", title=HOSTILE, about={HOSTILE: HOSTILE})
    show(browser, page, 1400)
    assert visit_every_device(browser) == 0
    flat = " ".join(HOSTILE.split())
    text = lambda selector: " ".join(browser.execute_script(  # noqa: E731
        f"return document.querySelector({json.dumps(selector)}).textContent").split())  # fmt: skip
    assert text("h1") == flat and browser.title == flat
    assert text("#matrix tbody td") == f"C0 {flat}"
    assert text(".tabs button") == f"Pixel 7 {flat}"
    assert text("#everything .ytick") == 'C0 <script>alert("x")</sc…'
    assert browser.execute_script("return document.querySelectorAll('main script, main b').length") == 0


def test_one_device_is_shown_at_a_time(browser, tmp_path):
    show(browser, write_report(make_rows(), tmp_path / "r.html"), 1400)
    heads = lambda: [h.text for h in browser.find_elements("css selector", ".panel h2") if h.is_displayed()]  # noqa: E731
    assert "All models on Pixel 7" in heads() and "All models on Galaxy A54" not in heads()
    browser.find_elements("css selector", ".tabs button")[1].click()
    assert "All models on Galaxy A54" in heads() and "All models on Pixel 7" not in heads()
    browser.execute_script("document.querySelectorAll('.pick')[2].click()")
    assert "All models on this computer" in heads()


def test_a_click_on_a_heading_sorts_and_a_failed_row_stays_last(browser, tmp_path):
    show(browser, write_report(make_rows(), tmp_path / "r.html"), 1400)
    browser.find_elements("css selector", ".tabs button")[1].click()
    column = lambda: browser.execute_script(  # noqa: E731
        "return [...document.querySelectorAll('#panel-1 .models tbody tr')].map(r => r.cells[4].dataset.value)")
    head = browser.find_elements("css selector", "#panel-1 .models th button")[4]
    before = column()
    assert head.text.startswith("median") and before[-1] == ""
    for backwards in (False, True):
        browser.execute_script("arguments[0].click()", head)
        assert [float(v) for v in column()[:-1]] == sorted((float(v) for v in before[:-1]), reverse=backwards)
        assert column()[-1] == ""


def test_the_matrix_shows_one_quantity_and_its_best(browser, tmp_path):
    show(browser, write_report(make_rows(), tmp_path / "r.html"), 1400)
    cells = lambda: [e.text for e in browser.find_elements("css selector", "#matrix tbody tr:nth-child(5) td")]  # noqa: E731
    best = lambda: browser.execute_script(  # noqa: E731
        "return [...document.querySelectorAll('#matrix td.top')].map(e => e.parentNode.cells[0].innerText)")
    assert cells() == ["P90Q8", "63 µs", "138 µs", "28.4 µs"] and best() == ["Q8", "P90Q8", "P90Q8"]
    browser.execute_script(
        "const m = document.getElementById('metric'); m.value = 'energy'; m.dispatchEvent(new Event('change'))")
    assert cells() == ["P90Q8", "151 µJ", "not measured", "not measured"] and best() == ["P90Q8"]


def test_the_mouse_over_a_repetition_says_that_it_was_throttled(browser, tmp_path):
    from selenium.webdriver import ActionChains

    show(browser, write_report(make_rows(host=False), tmp_path / "r.html"), 1400)
    browser.find_elements("css selector", ".tabs button")[1].click()
    points = browser.find_elements("css selector", "#panel-1 .chart .scatterlayer .point")
    red = next(point for point in points if "rgb(220, 38, 38)" in point.get_attribute("style"))
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", red)
    ActionChains(browser).move_to_element(red).perform()
    browser.implicitly_wait(5)
    text = browser.find_element("css selector", "#panel-1 .hoverlayer .hovertext").text
    assert "Q16" in text and "clock limit of cores 4-7" in text
