"""The page in a browser: its verdicts are those of the check, and it needs no network, no mouse and no large screen."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from matrix.compatibility import compile_matrix
from matrix.html import to_html
from omni_config.catalog.load import catalog
from omni_config.checking.files import check_bytes

DRAWS = 600

#: Sets the controls as a person does, and reads what the page then shows.
DRIVE = """(draws) => draws.map(({engine, model, settings}) => {
  const change = (id) => document.getElementById(id).dispatchEvent(new Event("change", {bubbles: true}));
  document.getElementById("engine").value = engine; change("engine");
  document.getElementById("model").value = model;
  for (const [name, value] of Object.entries(settings)) {
    const control = document.getElementById(`set-${name}`);
    if (control.type === "checkbox") control.checked = value > 0; else control.value = String(value);
  }
  change("model");
  return {
    yaml: document.getElementById("yaml").textContent,
    verdict: document.getElementById("verdict").textContent,
    found: [...document.querySelectorAll("#findings li")].map(
      (item) => [item.dataset.code, item.className, item.querySelector(".message").textContent.trim()]),
  };
})"""


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("page") / "matrix.html"
    path.write_text(to_html(), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    page.path = path
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    return page


def drawn(count: int, domain: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Configs of every engine in turn, from mostly plain to everything at once."""
    chance = random.Random(0)
    result = []
    for number in range(count):
        engine = catalog().engine(catalog().matrix_engines[number % len(catalog().matrix_engines)])
        models = [name for name in catalog().charted_ids if engine.claim(catalog().model(name)) is not None]
        share = chance.choice((0.1, 0.25, 0.6))
        settings = {
            name: chance.randrange(len(values)) if chance.random() < share else 0 for name, values in domain.items()
        }
        result.append({"engine": engine.id, "model": chance.choice(models), "settings": settings})
    return result


def findings_of(yaml: str) -> list[list[str]]:
    (checked,) = check_bytes("page.yaml", yaml.encode())
    assert checked.resolution is not None, yaml
    return sorted([finding.code, finding.severity, finding.message] for finding in checked.findings)


def test_the_page_says_what_the_check_says(page: Any) -> None:
    draws = drawn(DRAWS, page.evaluate("data.settings"))
    answers = page.evaluate(DRIVE, draws)
    refused = 0
    for draw, answer in zip(draws, answers, strict=True):
        assert f"model: {draw['model']}" in answer["yaml"]
        assert sorted(answer["found"]) == findings_of(answer["yaml"]), answer["yaml"]
        errors = any(severity == "error" for _, severity, _ in answer["found"])
        assert answer["verdict"].startswith("Refused") == errors
        refused += errors
    assert DRAWS // 10 < refused < DRAWS * 9 // 10
    assert not page.problems


def test_a_table_that_lost_a_finding_is_noticed(page: Any) -> None:
    """The control of the test above: with one kind of finding gone from the tables, page and check differ."""
    draws = drawn(60, page.evaluate("data.settings"))
    page.evaluate("window.kept = data.nodes; data.nodes = data.nodes.map((n) => typeof n[0] === 'number' ? [] : n)")
    answers = page.evaluate(DRIVE, draws)
    page.evaluate("data.nodes = window.kept")
    assert any(sorted(answer["found"]) != findings_of(answer["yaml"]) for answer in answers)


def test_what_it_says_would_work_works(page: Any) -> None:
    offered = 0
    for draw in drawn(12, page.evaluate("data.settings")):
        (before,) = page.evaluate(DRIVE, [draw])
        if not before["verdict"].startswith("Refused"):
            continue
        page.wait_for_selector("#working h3", timeout=120_000)
        if page.query_selector("#working button"):
            page.evaluate("document.querySelector('#working button').click()")
            assert not [f for f in findings_of(page.text_content("#yaml")) if f[1] == "error"]
            offered += 1
    assert offered > 2


def test_the_matrix_can_be_read_with_the_keyboard_and_filtered(page: Any) -> None:
    assert page.input_value("#filter-engine") == "native"
    page.select_option("#filter-engine", "vllm-omni")
    page.focus("#pairs tbody td[tabindex='0']")
    assert "Cache-DiT: no" in page.text_content("#detail")
    assert "OMNI201" in page.text_content("#detail")
    page.keyboard.press("ArrowDown")
    assert "TeaCache with Ulysses-SP: yes" in page.text_content("#detail")
    page.select_option("#filter-model", "Tongyi-MAI/Z-Image-Turbo")
    assert page.locator("#models tbody tr").count() == 1
    label = page.locator("#models tbody td[aria-label^='Tensor Parallelism']").get_attribute("aria-label")
    assert label == "Tensor Parallelism on Tongyi-MAI/Z-Image-Turbo: only, tensor_parallel_size = 2"
    page.select_option("#filter-model", "")
    page.select_option("#filter-task", "text_to_audio")
    assert {
        json.loads(task)
        for task in page.evaluate(
            "[...document.querySelectorAll('#models tbody th')].map((th) => JSON.stringify(data.models[th.title].task))"
        )
    } == {"text_to_audio"}
    page.select_option("#filter-task", "")


def opened(browser: Any, page: Any, address: str = "", **options: Any) -> Any:
    """The page in a window of its own."""
    other = browser.new_context(offline=True, **options).new_page()
    other.goto(page.path.as_uri() + address)
    other.wait_for_selector("body[data-ready]", timeout=120_000)
    return other


def test_two_versions_are_compared_cell_by_cell(page: Any) -> None:
    page.select_option("#filter-engine", "vllm-omni==0.30")
    page.select_option("#filter-other", "vllm-omni==0.28")
    new, old = compile_matrix("vllm-omni==0.30"), compile_matrix("vllm-omni==0.28")
    wanted = {
        f"{feature}@{model}": f"{old.models[model][feature].verdict}→{cell.verdict}"
        for model, row in new.models.items()
        for feature, cell in row.items()
        if feature in old.features and model in old.models and old.models[model][feature].verdict != cell.verdict
    }
    assert wanted
    shown = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#models td.changed')]"
        ".map((td) => [td.dataset.key, td.textContent]))"
    )
    assert shown == wanted
    assert f"{len(wanted)} verdicts on models" in page.text_content("#changes")
    page.check("#filter-differing")
    assert page.locator("#models tbody tr").count() == len({key.partition("@")[2] for key in wanted})
    key = next(iter(wanted))
    page.hover(f"#models td[data-key='{key}']")
    assert "It was" in page.text_content("#detail")
    page.uncheck("#filter-differing")
    page.select_option("#filter-other", "")
    assert page.locator("td.changed").count() == 0


def test_engines_stand_side_by_side(page: Any) -> None:
    page.select_option("#filter-engine", "vllm-omni==0.30")
    page.select_option("#filter-model", "Qwen/Qwen-Image")
    heads = page.evaluate("[...document.querySelectorAll('#versions thead th')].map((th) => th.textContent)")
    assert heads == sorted(catalog().matrix_engines)
    for engine in ("native", "vllm-omni==0.28"):
        cell = compile_matrix(engine).models["Qwen/Qwen-Image"]["cache_dit"]
        assert page.text_content(f"#versions td[data-key='cache_dit@Qwen/Qwen-Image@{engine}']") == cell.verdict
    page.select_option("#filter-model", "")
    table = compile_matrix("vllm-omni==0.30")
    runs = sum(row["cache_dit"].verdict != "no" for row in table.models.values())
    assert page.text_content("#versions td[data-key='cache_dit@@vllm-omni==0.30']") == f"{runs}/{len(table.models)}"


def test_models_are_searched_by_name_family_and_task(page: Any) -> None:
    page.select_option("#filter-engine", "vllm-omni==0.30")
    page.fill("#filter-search", "wan image to video")
    names = page.evaluate("[...document.querySelectorAll('#models tbody th')].map((th) => th.title)")
    assert "Wan-AI/Wan2.2-I2V-A14B-Diffusers" in names
    assert all("wan" in name.lower() for name in names)
    assert page.text_content("#found").startswith(f"{len(names)} of ")
    page.fill("#filter-search", "nothing of this name")
    assert page.locator("#models tbody tr").count() == 0
    page.fill("#filter-search", "")


def test_evidence_and_sources_stand_in_the_panel(page: Any) -> None:
    page.select_option("#filter-engine", "native")
    page.hover("#pairs td[data-key='cache_dit+ulysses']")
    text = page.text_content("#detail")
    assert "proven" in text
    assert catalog().engine("native").source in text
    page.hover("#pairs td[data-key='cache_dit+tea_cache']")
    assert catalog().by_code["OMNI201"].source in page.text_content("#detail")


def test_a_link_keeps_what_is_chosen(page: Any, browser: Any) -> None:
    page.select_option("#filter-engine", "vllm-omni==0.30")
    page.select_option("#filter-other", "xdit==0.7")
    page.fill("#filter-search", "wan")
    page.select_option("#engine", "sglang==0.5.23")
    page.select_option("#set-ulysses_degree", "1")
    page.check("#set-cache_dit")
    page.focus("#models tbody td[tabindex='0']")
    page.keyboard.press("ArrowRight")
    key = page.evaluate("document.activeElement.dataset.key")
    page.wait_for_function("location.hash.includes('cell=')")
    page.wait_for_timeout(300)
    other = opened(browser, page, page.evaluate("location.hash"), viewport={"width": 1200, "height": 900})
    for control in ("#filter-engine", "#filter-other", "#filter-search", "#engine", "#model", "#set-ulysses_degree"):
        assert other.input_value(control) == page.input_value(control), control
    assert other.is_checked("#set-cache_dit")
    assert other.text_content("#yaml") == page.text_content("#yaml")
    assert other.evaluate("document.activeElement.dataset.key") == key
    assert other.text_content("#detail") == page.text_content("#detail")
    other.context.close()
    for broken in ("#engine=nothing&model=x&cell=%22%5D", "#configurator", "#=&config=native&of=x&gpus=none"):
        other = opened(browser, page, broken)
        assert other.input_value("#filter-engine") == "native"
        other.context.close()
    page.fill("#filter-search", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (768, 1024), (360, 740)])
def test_axe_finds_no_barrier(page: Any, browser: Any, width: int, height: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python")
    script = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    address = (
        "#engine=vllm-omni%3D%3D0.30&other=vllm-omni%3D%3D0.28&cell=cache_dit%2Btea_cache&config=native&tea_cache=true"
    )
    options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    other = opened(browser, page, address, **options)
    other.evaluate(script)
    found = other.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
    assert other.evaluate("document.documentElement.scrollWidth") <= width
    other.context.close()


def test_axe_would_find_one(page: Any, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python")
    other = opened(browser, page, viewport={"width": 360, "height": 740})
    other.evaluate(
        "document.querySelector('#filter-engine').closest('label').replaceWith(document.querySelector('#filter-engine'))"
    )
    other.evaluate("document.querySelector('#choose').open = true")
    other.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = other.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert "select-name" in [one["id"] for one in found]
    other.context.close()


def test_on_a_phone_the_table_comes_first(page: Any, browser: Any) -> None:
    other = opened(browser, page, viewport={"width": 360, "height": 740})
    top = other.evaluate("document.querySelector('#pairs').getBoundingClientRect().top")
    assert top < 740 / 2
    assert not other.is_visible("#filter-engine")
    other.click("#choose summary")
    assert other.is_visible("#filter-engine")
    other.context.close()


def test_every_control_has_a_name_and_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    unnamed = page.evaluate(
        "[...document.querySelectorAll('select, input, button')].filter((e) => !e.labels?.length && !e.textContent)"
        ".map((e) => e.id)"
    )
    assert unnamed == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size({"width": 1200, "height": 900})


def test_the_page_is_small_and_asks_for_nothing(page: Any) -> None:
    text = page.path.read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    assert '<link rel="stylesheet"' not in text
    assert "src=" not in text
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter((r) => r.name.startsWith('http')).length") == 0
    )
