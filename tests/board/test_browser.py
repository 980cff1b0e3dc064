"""The board's page in a real browser: what it does, that it is accessible, and that no record takes it over."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hostile_records import HOSTILE, add_hostile

from harness.board import gallery, vendoring
from harness.board.page import write_board
from harness.board.records import Cost, write_record

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -e '.[dev]')")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

# What follows a click comes in its own time: dialogs close, addresses change and plots are drawn after the handler has
# returned. So tests say what they expect to see, and `expect` waits for it, long where the machine is busy.
expect = playwright.expect
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (apt-get install chromium)"),
    pytest.mark.skipif(
        not all(vendoring.is_current(vendoring.VENDOR / name, packages) for name, packages in vendoring.FILES.items()),
        reason="the page's libraries are not here (python -m harness.board.vendoring)",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Without its sandbox: containers in which tests run as root have no user namespaces to build it from.
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """`visit(board, "#tab/x")`: the page, opened as a file. Console messages and requests elsewhere fail it."""
    faults: list[str] = []
    contexts = []

    def open_page(board: Path, address: str = "", **options: Any) -> Any:
        options = {"viewport": {"width": 1300, "height": 900}} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        root = board.resolve().as_uri()
        page.on("request", lambda request: request.url.startswith(root) or faults.append(f"asks for {request.url}"))
        page.goto(f"{root}/index.html{address}")
        page.locator("#board table.grid").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def small(builder: Any, right: Any) -> Path:
    """Two entries that cannot be told apart, a clearly worse one, and one that is not ranked."""
    for name, one, two, parameters in (("alpha", 90, 80, 3000), ("beta", 89, 82, 1000), ("gamma", 20, 30, 2000)):
        for seed in range(2):
            builder.add(
                name,
                {"one": right(one, 100), "two": right(two, 100)},
                seed=seed,
                submission={"name": name, "model": {"backbone": {"name": f"net-{name}"}}, "seeds": [0, 1]},
                curves={
                    "loss/one": [(0, 2.0), (10, 1.0)],
                    "loss/two": [(0, 3.0), (10, 1.0)],
                    "rate": [(0, 1.0), (9, 0.0)],
                    "cosine/one|two": [(0, -0.5), (10, -0.3)],
                    "affinity/one|two": [(0, 0.02)],
                    "affinity/two|two": [(0, 0.3)],
                },
                cost=Cost(parameters=parameters, train_seconds=parameters / 10, images_per_second=5.0, macs={"one": 5}),
            )
    builder.add("quick", {"one": right(9, 10)}, rankable=False, unrankable_because=["limited to 10 images"])
    write_board(builder.board)
    return Path(builder.board)


def names(page: Any) -> Any:
    return page.locator(".ranking .grid tbody .entry a")


def address(board: Path, *entries: str) -> str:
    keys = {folder.name: folder for folder in (board / "records").iterdir()}
    prints = {name: next(folder.iterdir()).name.partition("-seed")[0] for name, folder in keys.items()}
    return "/".join(quote(f"{name}@{prints[name]}", safe="") for name in entries)


def test_a_click_on_a_header_sorts_and_another_one_turns_the_order(small: Path, visit: Any) -> None:
    page = visit(small)
    expect(names(page)).to_have_text(["beta", "alpha", "gamma"])
    header = page.locator(".ranking .grid thead th", has_text="Parameters")
    header.get_by_role("button").click()
    expect(names(page)).to_have_text(["beta", "gamma", "alpha"])
    expect(header).to_have_attribute("aria-sort", "ascending")
    header.get_by_role("button").press("Enter")
    expect(names(page)).to_have_text(["alpha", "gamma", "beta"])
    expect(header).to_have_attribute("aria-sort", "descending")


def test_search_and_filters_narrow_the_table_and_say_how_many_are_left(small: Path, visit: Any) -> None:
    page = visit(small)
    page.get_by_label("Search").fill("ALP net")
    expect(names(page)).to_have_text(["alpha"])
    expect(page.locator(".pager")).to_have_text("1 of 3 entries")
    page.get_by_label("Search").fill("<nobody>")
    expect(page.locator(".ranking .grid tbody")).to_have_text("No entry fits.")
    page.get_by_label("Search").fill("")
    page.get_by_label("Backbone").select_option("net-gamma")
    expect(names(page)).to_have_text(["gamma"])


def test_a_task_tab_brackets_those_that_cannot_be_told_apart_and_no_others(small: Path, visit: Any) -> None:
    page = visit(small)
    page.get_by_role("tab", name="Classification one").click()
    expect(page.get_by_role("tab", name="Classification one")).to_have_attribute("aria-selected", "true")
    expect(names(page)).to_have_text(["alpha", "beta", "gamma"])
    rows = page.locator(".ranking .grid tbody tr")
    assert [row.get_attribute("class") for row in rows.all()] == ["tied opens", "tied closes", None]
    assert [row.locator("td.rank").inner_text().split()[0] for row in rows.all()] == ["1", "1", "3"]
    assert "cannot tell apart from alpha" in rows.nth(1).locator(".tie").get_attribute("title")
    expect(page).to_have_url(re.compile("#"))
    page.reload()  # the tab is in the address
    page.get_by_role("tab", name="Classification one", selected=True).wait_for()


def test_tabs_are_walked_with_the_arrow_keys(small: Path, visit: Any) -> None:
    page = visit(small)
    page.get_by_role("tab", selected=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Classification two", selected=True)).to_be_focused()


def test_an_entry_that_is_not_ranked_is_apart_with_its_reason(small: Path, visit: Any) -> None:
    page = visit(small)
    expect(names(page)).to_have_text(["beta", "alpha", "gamma"])
    section = page.locator("section", has=page.locator("#unranked"))
    assert "limited to 10 images" in section.inner_text()
    section.get_by_role("link").click()
    expect(page.get_by_role("dialog")).to_contain_text("Not ranked: limited to 10 images")


def test_comparing_two_entries_gives_the_paired_differences_of_the_board(small: Path, visit: Any) -> None:
    page = visit(small)
    page.get_by_label("Compare gamma").check()
    page.get_by_label("Compare alpha").check()
    page.get_by_role("link", name="Compare 2").click()
    dialog = page.get_by_role("dialog")
    one = dialog.locator("table", has_text="one").first
    expect(one).to_contain_text("\N{MINUS SIGN}70.00")  # 20 against 90 of the same 100 images
    expect(one.locator(".verdict")).to_have_text("worse")
    expect(dialog).to_contain_text("model.backbone.name")
    expect(dialog).to_contain_text("harness compare gamma@")
    dialog.get_by_label("gamma").check()  # against the other one: the sign turns
    expect(one).to_contain_text("+70.00")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page).not_to_have_url(re.compile("compare"))


def test_three_entries_are_corrected_over_all_that_is_shown(small: Path, visit: Any) -> None:
    dialog = visit(small, f"#compare/{address(small, 'alpha', 'beta', 'gamma')}").get_by_role("dialog")
    expect(dialog).to_contain_text("Holm corrected over the 4 differences shown")
    expect(dialog.locator(".verdict")).to_have_text(["better", "better", "better", "better"])
    dialog.get_by_label("alpha").check()
    expect(dialog.locator(".verdict")).to_have_text(["cannot be told apart", "worse"] * 2)


def test_an_entry_has_an_address_and_shows_how_to_make_it_again(small: Path, visit: Any) -> None:
    page = visit(small, f"#entry/{address(small, 'alpha')}")
    dialog = page.get_by_role("dialog", name="alpha")
    expect(dialog).to_contain_text("harness submit alpha.yaml --seeds 0,1")
    expect(dialog).to_contain_text("name: net-alpha")
    # Losses of both tasks in one plot, the rate, cosines and affinities.
    dialog.locator(".plots svg.marks").nth(3).wait_for()
    expect(dialog.locator(".plots figure")).to_have_count(4)
    dialog.get_by_text("By class (3)").first.click()
    expect(dialog.get_by_text("green", exact=True).first).to_be_visible()


def test_the_trade_off_has_its_frontier_and_can_be_had_for_another_cost(small: Path, visit: Any) -> None:
    page = visit(small)
    plot = page.locator("#board .plot svg.marks")
    plot.wait_for()
    # Beta has the fewest parameters and the best mean.
    expect(page.locator("#board .plot")).to_have_attribute("aria-label", re.compile("frontier: beta\\.$"))
    page.get_by_role("radio", name="Throughput").check(force=True)  # the label lies over it
    expect(page.locator("#board .plot")).to_contain_text("training images per second")


def test_pictures_of_predictions_are_cut_from_the_records_sheet(builder: Any, right: Any, visit: Any) -> None:
    import hashlib
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (40, 84), (200, 30, 30)).save(stream, "WEBP")
    sheet = gallery.Sheet(
        sha256=hashlib.sha256(stream.getvalue()).hexdigest(),
        width=40,
        height=84,
        panels=["image"],
        note="chosen",
        examples=[
            gallery.Example(
                id="<b>x</b>", side=side, value=value, y=y, width=40, height=40, lines=[("question", "<i>")]
            )
            for side, value, y in (("best", 1.0, 0), ("worst", 0.0, 44))
        ],
    )
    files = gallery.gallery_files(gallery.Gallery(sheets={"one": sheet}), {"one": stream.getvalue()})
    record, statistics = builder.record("alpha", {"one": right(5, 10)})
    write_record(builder.board, record, statistics, gallery=files)
    write_board(builder.board)
    page = visit(builder.board, f"#entry/{quote(record.entry, safe='')}")
    pictures = page.locator(".picture")
    expect(pictures).to_have_count(2)
    assert [picture.get_attribute("viewBox") for picture in pictures.all()] == ["0 0 40 40", "0 44 40 40"]
    expect(page.locator(".tiles")).to_contain_text("question <i>")

    def is_red() -> bool:
        box = pictures.nth(1).bounding_box()
        screen = Image.open(io.BytesIO(page.screenshot()))
        red, green, *_ = screen.getpixel((int(box["x"] + box["width"] / 2), int(box["y"] + 20)))
        return bool(red > 150 > green)

    # The picture is loaded, in its own time: the policy lets it in.
    until = time.monotonic() + PATIENCE / 1000
    while not is_red() and time.monotonic() < until:
        page.wait_for_timeout(100)
    assert is_red()


def test_an_entrys_tasks_stand_beside_each_other_in_labelled_matrices(small: Path, visit: Any) -> None:
    page = visit(small, f"#entry/{address(small, 'alpha')}")
    table = page.get_by_role("table", name="Gradient cosine, mean over training")
    expect(table.get_by_role("columnheader")).to_have_text(["one", "two"])
    expect(table.get_by_role("rowheader")).to_have_text(["one", "two"])
    cells = [text.split("\n")[0] for text in table.locator("tbody td").all_inner_texts()]
    assert cells == ["\u2013", "\u22120.40", "\u22120.40", "\u2013"]
    expect(table.locator("td.n2.clear")).to_have_count(2)  # coloured by size and sign; both seeds say the same
    affinity = page.get_by_role("table", name=re.compile("TAG affinity"))
    expect(affinity.locator("tbody td")).to_have_count(4)
    assert [text.split("\n")[0] for text in affinity.locator("tbody td").all_inner_texts()] == [
        *("\u2013", "+0.02", "\u2013", "+0.3"),
    ]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_record_takes_the_page_over(builder: Any, right: Any, visit: Any, hostile: str) -> None:
    for name, count in (("a", 10), ("b", 20)):
        add_hostile(builder, right, name, hostile, count)
    write_board(builder.board)
    page = visit(builder.board)
    page.locator("#board .plot svg.marks").wait_for()
    for kind, entries in (("entry", ["a"]), ("compare", ["a", "b"])):
        page.goto(f"{page.url.partition('#')[0]}#{kind}/{address(builder.board, *entries)}")
        expect(page.get_by_role("dialog")).to_have_count(1)
        expect(
            page.locator("dialog", has_text="harness compare" if kind == "compare" else "harness submit")
        ).to_be_visible()
        text = page.get_by_role("dialog").inner_text()
        assert kind == "compare" or not hostile.isprintable() or hostile in text  # as text, whole
        assert (
            page.locator("img, iframe, object, a[href^='javascript'], [onmouseover], [onerror], [onfocus]").count() == 0
        )
        assert page.locator("script").count() == 4  # data, the page's own and the two libraries


@pytest.mark.parametrize("view", ["", "#tab", "#entry", "#compare"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(small: Path, visit: Any, view: str, scheme: str) -> None:
    places = {"#entry": f"/{address(small, 'alpha')}", "#compare": f"/{address(small, 'alpha', 'beta')}"}
    page = visit(small, view + places.get(view, ""), color_scheme=scheme)
    if view == "#tab":
        page.get_by_role("tab").nth(1).click()
    if view == "#entry":
        page.locator("dialog svg.marks").first.wait_for()
    page.locator("#board .plot svg.marks").wait_for()
    found = axe.Axe().run(page)
    assert not found.response["violations"], found.generate_report()


def test_at_400_pixels_nothing_but_the_tables_scrolls_sideways(small: Path, visit: Any) -> None:
    for view in ("", f"#entry/{address(small, 'alpha')}", f"#compare/{address(small, 'alpha', 'beta')}"):
        page = visit(small, view, viewport={"width": 400, "height": 800})
        page.locator("#board .plot svg.marks").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        if view:
            page.get_by_role("dialog").wait_for()
            assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 400


def test_without_the_libraries_the_numbers_are_there_all_the_same(small: Path, browser: Any) -> None:
    shutil.rmtree(small / "assets")
    page = browser.new_page()
    page.goto(f"{small.resolve().as_uri()}/index.html")
    page.locator("#board table.grid").wait_for()
    expect(names(page)).to_have_text(["beta", "alpha", "gamma"])
    expect(page.locator("#board")).to_contain_text("harness leaderboard writes it")
    page.get_by_role("link", name="alpha").click()
    expect(page.get_by_role("dialog")).to_contain_text("harness submit alpha.yaml")
    page.close()


def test_without_scripts_there_is_a_plain_table(small: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{small.resolve().as_uri()}/index.html")
    assert [cell.split()[0] for cell in page.locator("#plain .entry").all_inner_texts()] == ["beta", "alpha", "gamma"]
    context.close()
