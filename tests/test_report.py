"""The report: numbers, verdicts and Pareto front; in a real browser it sorts, hovers and fits a phone."""

import csv
import json
import re
import shutil

import pytest

from android_bench.result import Result
from tfcompress.study.figures import heat_map, pareto, scatter
from tfcompress.study.grid import cells
from tfcompress.study.report import headline, to_csv, write_report
from tfcompress.study.verdict import judge


def make_rows(device="host-1thread", slowdown=1.0):
    """18 rows with plain numbers: bytes by precision, gzip by sparsity, int8 twice as fast."""
    rows = []
    for cell in cells():
        bits = cell.quantize.bits if cell.quantize else 32
        accuracy = 0.91 - 0.002 * len(cell.steps) - (0.03 if cell.id == "Q8P90" else 0)
        rows.append(
            Result(
                id=cell.id, recipe=cell.recipe, device=device, accuracy=accuracy, macro_f1=accuracy - 0.4,
                delta_accuracy=accuracy - 0.91, recalls={"N": 0.95, "S": 0.2, "V": 0.9, "F": None},
                raw_bytes=200_000 * bits // 32, gzip_bytes=int(190_000 * bits / 32 * (1 - 0.9 * cell.sparsity)),
                sparsity=0.97 * cell.sparsity, levels=255, cpu_percent=99.0,
                latency_p50_us=slowdown * (90.0 if bits == 8 else 180.0),
                latency_p95_us=slowdown * (99.0 if bits == 8 else 198.0),
                facts={"validation": {"accuracy": accuracy, "macro_f1": accuracy - 0.4},
                       "pruned_sparsity": cell.sparsity or None},
            )
        )  # fmt: skip
    return rows


def test_headline_is_the_smallest_download_that_keeps_the_quality():
    rows = make_rows()
    best = headline(rows)
    assert best["id"] == "P90Q8" and best["by"] == "validation"  # Q8P90 is as small, but lost 3 points
    assert best["smaller"] == 4 and best["faster"] == 2
    assert round(best["points"], 1) == -0.4


def test_headline_is_picked_on_validation_data_not_on_test_data():
    rows = make_rows()
    assert headline(rows)["holds"]
    worse_on_test = [row.replace(accuracy=0.5) if row.id == "P90Q8" else row for row in rows]
    assert headline(worse_on_test)["id"] == "P90Q8" and headline(worse_on_test)["holds"] is False
    better_on_test = [row.replace(accuracy=0.95) if row.id == "Q8P90" else row for row in rows]
    assert headline(better_on_test)["id"] == "P90Q8"
    without = [row.replace(facts=None) for row in better_on_test]
    assert headline(without)["by"] == "test"


def test_no_headline_where_everything_loses():
    rows = [row if row.id == "C0" else row.replace(facts=None, accuracy=0.5) for row in make_rows()]
    assert headline(rows) is None


@pytest.mark.parametrize(
    ("id", "overall", "why"),
    [
        ("P90", "theoretical", "unstructured zeros: same bytes, same time; only the download shrinks (5.3x by gzip)"),
        ("Q16", "real", "2.0x smaller file"),
        ("P90Q8", "real", "4.0x smaller file, 2.0x faster"),
        ("Q8P90", "no", "loses 3.40 points of accuracy and 0.034 of macro-F1"),
    ],
)
def test_verdicts(id, overall, why):
    rows = {row.id: row for row in make_rows()}
    verdict = judge(rows[id], rows["C0"])
    assert (verdict.overall, verdict.why) == (overall, why)


def test_a_slower_model_is_called_slower():
    control = make_rows()[0]
    verdict = judge(control.replace(id="Q16", raw_bytes=100_000, latency_p50_us=360.0), control)
    assert verdict.why == "2.0x smaller file, 2.0x slower" and verdict.time == "no"


def test_a_faster_median_alone_may_be_noise():
    control = make_rows()[0]
    pruned = control.replace(id="P70", sparsity=0.7, latency_p50_us=150.0, latency_p95_us=198.0)
    assert judge(pruned, control).time == "theoretical"
    assert judge(pruned.replace(latency_p95_us=179.0), control).why == "1.2x faster"


def test_pareto_front_of_equal_points_has_one_of_them():
    assert pareto([(1, 0.9), (1, 0.9), (2, 0.9), (3, 0.95)]) == [0, 3]
    assert pareto([]) == []


def test_charts_leave_out_what_was_not_measured():
    rows = [row.replace(latency_p50_us=None) for row in make_rows()]
    assert scatter(rows, "latency_p50_us", "accuracy", "us", "accuracy", 1)["data"] == []
    assert heat_map([row.replace(recalls=None) for row in rows]) is None
    assert heat_map(rows)["data"][0]["z"][0][3] is None


def test_csv_has_a_line_a_row_and_a_column_a_class():
    table = list(csv.DictReader(to_csv(make_rows()).splitlines()))
    assert [line["id"] for line in table] == [cell.id for cell in cells()]
    assert table[0]["recall V"] == "0.9" and table[0]["recall F"] == ""
    assert json.loads(table[0]["facts"])["pruned_sparsity"] is None


def test_page_needs_no_network_and_escapes_what_it_is_given(tmp_path):
    rows = [row.replace(recipe="<b>&</script>") for row in make_rows()]
    page = write_report(rows, tmp_path / "r.html", title="<x>", about={"a": "</script>"}).read_text()
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert "<b>&" not in body and "&lt;x&gt;" in body
    assert not re.search(r"(src|href)=.?https?:", body)
    assert body.count("not measured") >= 18  # energy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.html"]


def test_rows_without_a_control_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a row C0 for each device"):
        write_report(make_rows()[1:], tmp_path / "r.html")
    with pytest.raises(ValueError, match="Received 0 rows"):
        write_report([], tmp_path / "r.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    rows = make_rows() + make_rows("host-allthreads", slowdown=0.6)
    return write_report(rows, path, title="Heartbeats", about={"Machine": "x" * 90})


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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def show(browser, page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def column(browser, number, table="variants"):
    return browser.execute_script(
        f"return [...document.querySelectorAll('#{table} tbody tr')].map(r => r.cells[{number}].dataset.value)"
    )


def test_a_click_on_a_heading_sorts(browser, page):
    show(browser, page, 1400)
    heads = browser.find_elements("css selector", "#variants th")
    number = next(k for k, head in enumerate(heads) if head.text.startswith("gzip kB"))
    before = column(browser, number)
    heads[number].find_element("tag name", "button").click()
    assert [float(v) for v in column(browser, number)] == sorted(float(v) for v in before)
    assert heads[number].get_attribute("aria-sort") == "ascending"
    heads[number].find_element("tag name", "button").click()
    assert [float(v) for v in column(browser, number)] == sorted((float(v) for v in before), reverse=True)
    heads[0].find_element("tag name", "button").click()
    assert column(browser, 0)[0] == "C0" and heads[number].get_attribute("aria-sort") is None
    assert column(browser, 0) == sorted(column(browser, 0))


def test_the_mouse_over_a_point_names_the_cell(browser, page):
    from selenium.webdriver import ActionChains

    show(browser, page, 1400)
    points = browser.find_elements("css selector", "#chart-1 .scatterlayer .point")
    assert len(points) == 18
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[0])
    ActionChains(browser).move_to_element(points[0]).perform()
    browser.implicitly_wait(5)
    text = browser.find_element("css selector", "#chart-1 .hoverlayer .hovertext").text
    assert "C0" in text and "91.00" in text


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_fits_and_logs_no_error(browser, page, width):
    show(browser, page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelectorAll('.chart .main-svg').length") >= 6
    too_wide = browser.execute_script(
        "return [...document.querySelectorAll('.main-svg, section, .tile')]"
        ".filter(e => e.getBoundingClientRect().right > window.innerWidth + 1).length"
    )
    assert too_wide == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
