"""Reading YAML: positions are exact, and what cannot be used is refused in one readable finding."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from omni_config.reading.nodes import MAX_BYTES, Unreadable, decode, parse


def read(text: str | bytes):
    return parse(decode("c.yaml", text if isinstance(text, bytes) else text.encode()))


def refusal(text: str | bytes) -> tuple[str, int, int, str]:
    with pytest.raises(Unreadable) as caught:
        read(text)
    finding = caught.value.finding
    assert finding.span is not None
    return finding.code, finding.span.line, finding.span.column, finding.message


def test_positions_are_those_of_key_and_value() -> None:
    (node,) = read("version: 1\nparallel:\n  ulysses_degree: 2 # two\n  list: [a, bc]\n")
    found = node.find(("parallel", "ulysses_degree"))
    assert (found.span.line, found.span.column, found.span.end) == (3, 19, 20)
    assert (found.key_span.line, found.key_span.column, found.key_span.end) == (3, 3, 17)
    assert node.find(("parallel", "list", 1)).span.column == 13
    assert node.find(("parallel", "nothing")) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values), st.booleans())
def test_values_are_those_of_safe_load(value: dict, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    loaded = yaml.safe_load(text)
    nodes = read(text)
    assert (nodes[0].value if nodes else None) == loaded


def test_merge_keys_and_aliases_are_read_as_safe_load_reads_them() -> None:
    text = "base: &b {x: 1, y: [1, 2]}\nother:\n  <<: *b\n  x: 3\nmany:\n  <<: [*b, {z: 4}]\nsame: *b\n"
    assert read(text)[0].value == yaml.safe_load(text)


def test_duplicate_keys_are_refused_with_both_places() -> None:
    code, line, column, message = refusal("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")
    assert (code, line, column) == ("OMNI903", 5, 3)
    assert "line 3" in message


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: [1\nb: 2\n", "OMNI901", 2, 2),
        ("a:\n\t- 1\n", "OMNI901", 2, 1),
        ("a: !!python/object/apply:os.system ['x']\n", "OMNI901", 1, 4),
        ("a: !!python/name:os.system x\n", "OMNI901", 1, 4),
        ("? [a, b]\n: 1\n", "OMNI901", 1, 3),
        ("a: *nowhere\n", "OMNI901", 1, 4),
        ("a: &x [*x]\n", "OMNI901", 1, 8),
        (b"a: \xff\n", "OMNI902", 1, 4),
        (b"a: 1\nb: \x00\n", "OMNI902", 2, 4),
        ("a: 010\n", "OMNI901", 1, 4),
        ("a: 1:30\n", "OMNI901", 1, 4),
        ("a: 0x1f\n", "OMNI901", 1, 4),
        ("a: " + "9" * 5000 + "\n", "OMNI901", 1, 4),
        ("[" * 100_000, "OMNI902", 1, 33),
        ("- " * 5000 + "a", "OMNI902", 1, 65),
        ("? " * 5000 + "a", "OMNI902", 1, 65),
    ],
)
def test_unusable_text_is_refused_where_it_breaks(text: str | bytes, code: str, line: int, column: int) -> None:
    assert refusal(text)[:3] == (code, line, column)


def test_a_bomb_of_aliases_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    code, _, _, message = refusal("\n".join(lines))
    assert code == "OMNI902"
    assert "expands" in message


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    assert refusal(b"a" * (MAX_BYTES + 1))[0] == "OMNI902"


@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_values_or_a_finding(data: bytes) -> None:
    with contextlib.suppress(Unreadable):
        assert all(node.value is not None for node in read(data))
