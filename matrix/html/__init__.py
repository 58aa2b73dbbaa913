"""The matrix as one web page that needs no network: the tables of both kinds, a style and a script, in one file."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

from matrix.cell import VERDICTS, Cell
from matrix.compatibility import Matrix, compile_matrix
from matrix.decision_trees import compile_tables
from matrix.engines.pages import runs_of_engines
from matrix.evidence import everything
from omni_config.catalog.load import catalog
from omni_config.schema.settings import FIELDS

FOLDER = Path(__file__).parent


def to_html() -> str:
    """The page, for every engine and model of the catalog."""
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    packed = b64encode(zlib.compress(json.dumps(data(), separators=(",", ":")).encode(), 9)).decode()
    parts = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")}
    for name, part in (parts | {"data": packed}).items():
        text = text.replace(f"{{{{{name}}}}}", part)
    return text


def data() -> dict[str, Any]:
    """All that the page's script reads."""
    tables, cells = compile_tables(), _Numbered()
    engines = {engine: compile_matrix(engine) for engine in sorted(catalog().matrix_engines)}
    models = [card for name in catalog().charted_ids if (card := catalog().model(name))]
    tasks = sorted({card.task for card in models})
    return {
        "verdicts": VERDICTS,
        "features": {name: [item.title, item.summary] for name, item in catalog().features.items()},
        "models": {card.id: {"family": card.family, "task": card.task, "pipeline": card.pipeline} for card in models},
        "rules": {rule.code: [rule.name, rule.severity, rule.why, rule.source] for rule in catalog().rules},
        "disagreements": [
            [one.topic, one.we_follow, one.why, one.models, one.features] for one in catalog().disagreements
        ],
        "fields": FIELDS,
        "engines": {
            engine: {
                "title": table.engine.title,
                "source": table.engine.source,
                "features": table.features,
                "models": {name: [cells[cell] for cell in row.values()] for name, row in table.models.items()},
                "pairs": {task: _pairs(_of_task(table, task), cells) for task in ("", *tasks)},
                "model_pairs": {
                    name: [cells[row[name]] if name in row else -1 for row in table.pairs.values()]
                    for name in table.models
                },
            }
            for engine, table in engines.items()
        },
        "cells": [[cell.verdict, cell.all_codes, cell.words] for cell in cells.items],
        "evidence": {"native": _own_runs()} | runs_of_engines(),
        "settings": tables.settings,
        "findings": [[found.code, found.message, found.next_step, dict(found.changes)] for found in tables.findings],
        "nodes": tables.nodes,
        "roots": tables.roots,
    }


def _own_runs() -> dict[str, list[str]]:
    return {
        name: [
            f"{pipeline}, {'proven' if entry.proven else 'refuted'}: {entry.spoken()} (torch {torch}, {entry.date})"
            for pipeline, entry in by_pipeline.items()
            if (torch := entry.versions["torch"])
        ]
        for name, by_pipeline in everything().items()
    }


class _Numbered:
    """Cells with numbers, equal ones once."""

    def __init__(self) -> None:
        self.items: list[Cell] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def __getitem__(self, cell: Cell) -> int:
        key = (cell.verdict, cell.all_codes, cell.words)
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            self.items.append(cell)
        return self._numbers[key]


def _of_task(table: Matrix, task: str) -> Matrix:
    """The part of a matrix that is about models of a task; all of it for ""."""
    cards = catalog()
    names = [name for name in table.models if not task or (card := cards.model(name)) is None or card.task == task]
    return replace(
        table,
        models={name: table.models[name] for name in names},
        pairs={pair: {name: row[name] for name in names if name in row} for pair, row in table.pairs.items()},
    )


def _pairs(table: Matrix, cells: _Numbered) -> list[int]:
    return [cells[table.pair(*pair)] for pair in table.pairs] if table.models else []
