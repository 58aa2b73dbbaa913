"""Fuzz the checker with libFuzzer: nothing that anyone feeds it ends in a traceback, a hang or a gigabyte.

    pip install atheris
    python tests/fuzz/fuzz_check.py -runs=1000000     # -jobs=2 -runs=500000 takes two cores

An input whose first byte is even is the file itself. An odd one chooses settings, their values and the order of the
lines, so that half of the inputs reach the rules. What breaks is written to ``crash-*``; once mended, it becomes a line
of ``tests/omni_config/test_source.py`` or ``test_check.py``.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from copy import copy
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["omni_config"]):
    from omni_config.catalog.load import catalog
    from omni_config.checking.files import check_bytes
    from omni_config.output import formats
    from omni_config.reading.nodes import MAX_BYTES
    from omni_config.rules.rule import examples
    from omni_config.schema.settings import DEFAULTS, FIELDS

ROOT = Path(__file__).parents[2]
MODELS = ("tiny", "Tongyi-MAI/Z-Image", "Qwen/Qwen-Image", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Qwen/Qwen-Imag")
VALUES = (
    True,
    False,
    None,
    0,
    1,
    2,
    3,
    4,
    6,
    8,
    1024,
    2**63,
    -1,
    0.5,
    float("nan"),
    "",
    "x",
    "fast",
    "fp8",
    [],
    {},
    [{}],
)
ENGINES = ("native", "vllm-omni", "vllm-omni==0.30", "vllm")
NAMES = [name for name in FIELDS if name not in ("version", "model", "engine")]


def document(data: bytes) -> bytes:
    """A document whose settings and values the bytes choose."""
    choose = atheris.FuzzedDataProvider(data)
    model, engine = choose.PickValueInList(list(MODELS)), choose.PickValueInList(list(ENGINES))
    tree = {"version": 1, "model": model, "engine": engine}
    flow = choose.ConsumeBool()
    while choose.remaining_bytes():
        *sections, leaf = FIELDS[choose.PickValueInList(NAMES)]
        place = tree
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        default = DEFAULTS.get(leaf)
        value = copy(choose.PickValueInList(list(VALUES)))
        place[leaf] = not default if isinstance(default, bool) and choose.ConsumeBool() else value
    separator = ", " if flow else "\n"
    text = separator.join(f"{name}: {json.dumps(value)}" for name, value in tree.items())  # JSON is YAML
    return f"{{{text}}}".encode() if flow else text.encode()


def one_input(data: bytes) -> None:
    """Check it; every finding stands inside the text, and a clean document has a Plan."""
    text = document(data[1:]) if data and data[0] % 2 else data[1:]
    assert len(text) < MAX_BYTES
    checked = check_bytes("fuzz.yaml", text)
    lines = text.count(b"\n") + text.count(b"\r") + 3 * len(text.split(b"\xe2\x80")) + 2
    for one in checked:
        for finding in one.findings:
            assert finding.span is None or 1 <= finding.span.line <= lines
            assert "\n" not in finding.message
        judged = one.resolution is not None  # a file of another tool may hold nothing to judge
        assert (one.plan is not None) == (judged and one.exit_code == 0)
    if data and data[0] in (64, 65):  # seldom, as they search for the nearest configurations that work
        for write in (formats.to_json, formats.to_sarif, formats.to_junit):
            write(checked)


def main() -> None:
    """Run libFuzzer from the examples, the documents of the rules and the words of the format."""
    with tempfile.TemporaryDirectory() as folder:
        texts = [path.read_bytes() for path in ROOT.glob("examples/*.yaml")]
        texts += [text.encode() for rule in catalog().rules for text in (*examples(rule.bad), *examples(rule.good))]
        for number, text in enumerate(texts):
            Path(folder, str(number)).write_bytes(b"\x02" + text)
            Path(folder, f"{number}s").write_bytes(b"\x01" + text)
        words = {part for path in FIELDS.values() for part in path}
        words |= {"&a", "*a", "<<", "!!", "---", "%YAML", "# omni: ignore["}
        dictionary = Path(folder, "words.dict")
        dictionary.write_text("".join(f'"{word}"\n' for word in sorted(words)))
        options = [f"-dict={dictionary}", "-max_len=1024", "-timeout=60", "-rss_limit_mb=1024", *sys.argv[1:], folder]
        gc.freeze()
        atheris.Setup([sys.argv[0], *options], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
