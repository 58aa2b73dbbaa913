"""The language server: the protocol around ``opened``, ``hover``, ``complete`` and ``actions``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path
from pygls.workspace import TextDocument

from omni_config import __version__
from omni_config.catalog.load import catalog
from omni_config.checking.choices import Choices
from omni_config.findings import Finding, Span
from omni_config.lsp import actions, complete, hover
from omni_config.lsp.opened import Opened
from omni_config.output.described import described
from omni_config.reading.project import forget

_LEVELS = {
    "error": lsp.DiagnosticSeverity.Error,
    "warning": lsp.DiagnosticSeverity.Warning,
    "advice": lsp.DiagnosticSeverity.Hint,
}
_KINDS = {
    "key": lsp.CompletionItemKind.Property,
    "flag": lsp.CompletionItemKind.Field,
    "value": lsp.CompletionItemKind.Value,
}
_WORD = re.compile(r"[\w.-]+")
FIX_ALL = "source.fixAll.omni"
_TABLES = ("omni.toml", "pyproject.toml")


class Server(LanguageServer):
    """Files that are open, each with its last check."""

    def __init__(self, choices: Choices) -> None:
        super().__init__("omni", __version__, text_document_sync_kind=lsp.TextDocumentSyncKind.Incremental)
        self.choices = choices
        self.opened: dict[str, Opened] = {}

    def text(self, uri: str) -> TextDocument:
        """A document as the editor has it."""
        return self.workspace.get_text_document(uri)

    def check(self, uri: str) -> Opened:
        """Check a file, and tell the editor."""
        document = self.text(uri)
        name = _name(uri)
        opened = Opened(name, document.source, self.choices, self.opened.get(uri))
        if opened.problem and not (uri in self.opened and self.opened[uri].problem == opened.problem):
            self.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Error, f"omni: {opened.problem}"))
        self.opened[uri] = opened
        found = [_diagnostic(document, finding) for _, finding in opened.findings]
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, document.version))
        return opened

    def found(self, uri: str) -> Opened:
        """The last check of a file."""
        return self.opened.get(uri) or self.check(uri)


def _name(uri: str) -> str:
    """The name of a file from the working folder, where it is below it."""
    path = to_fs_path(uri) or uri
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def serve(choices: Choices) -> None:
    """Serve on standard input and output, until the editor ends it."""
    server_for(choices).start_io()


def server_for(choices: Choices) -> Server:
    """The server with all that it answers."""
    server = Server(choices)

    @server.feature(lsp.INITIALIZED)
    def ready(_: lsp.InitializedParams) -> None:
        catalog().by_code  # noqa: B018 (so that the first key does not wait for it)
        described()

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        server.check(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        server.check(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        if params.text_document.uri.endswith(_TABLES):
            again()

    @server.feature(lsp.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def elsewhere(_: lsp.DidChangeWatchedFilesParams) -> None:
        again()

    def again() -> None:
        forget()
        for uri in list(server.opened):
            server.check(uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        server.opened.pop(uri, None)
        server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, []))

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hovered(params: lsp.HoverParams) -> lsp.Hover | None:
        uri, document = params.text_document.uri, server.text(params.text_document.uri)
        place = document.position_codec.position_from_client_units(document.lines, params.position)
        found = hover.hover(server.found(uri), place.line, place.character)
        if found is None:
            return None
        text, start, end = found
        content = lsp.MarkupContent(lsp.MarkupKind.Markdown, text)
        return lsp.Hover(content, _range(document, place.line, start, place.line, end))

    @server.feature(
        lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=[" ", "-", ":", "{", "=", ",", "/"])
    )
    def completed(params: lsp.CompletionParams) -> lsp.CompletionList:
        uri, document = params.text_document.uri, server.text(params.text_document.uri)
        place = document.position_codec.position_from_client_units(document.lines, params.position)
        found = complete.complete(server.found(uri), place.line, place.character)
        items = [
            lsp.CompletionItem(
                label=one.text.strip().removesuffix(":"),
                kind=_KINDS[one.kind],
                detail=one.detail or None,
                documentation=lsp.MarkupContent(lsp.MarkupKind.Markdown, one.about) if one.about else None,
                sort_text=f"{number:04}",
                filter_text=one.text.strip(),
                insert_text_mode=lsp.InsertTextMode.AsIs,
                text_edit=lsp.TextEdit(_range(document, place.line, one.start, place.line, place.character), one.text),
            )
            for number, one in enumerate(found)
        ]
        return lsp.CompletionList(is_incomplete=False, items=items)

    @server.feature(
        lsp.TEXT_DOCUMENT_CODE_ACTION,
        lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix, FIX_ALL]),
    )
    def mended(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        uri, document = params.text_document.uri, server.text(params.text_document.uri)
        return list(_actions(server.found(uri), document, params))

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_LINK)
    def linked(params: lsp.DocumentLinkParams) -> list[lsp.DocumentLink]:
        document = server.text(params.text_document.uri)
        return [
            lsp.DocumentLink(_range(document, line, found.start(), line, found.end()), target=hover.page_of(found[0]))
            for line, text in enumerate(document.lines)
            if "omni" in text.lower()
            for found in hover.CODE.finditer(text)
            if found[0] in catalog().by_code
        ]

    return server


def _diagnostic(document: TextDocument, finding: Finding) -> lsp.Diagnostic:
    known = finding.code in catalog().by_code
    next_step = f"\nNext: {finding.next_step}" if finding.next_step else ""
    related = [
        lsp.DiagnosticRelatedInformation(lsp.Location(_uri(document, span), _place(document, span)), _said(span))
        for span in finding.related
    ]
    return lsp.Diagnostic(
        range=_place(document, finding.span),
        message=f"{finding.message}{next_step}",
        severity=_LEVELS[finding.severity],
        code=finding.code,
        code_description=lsp.CodeDescription(hover.page_of(finding.code)) if known else None,
        source="omni",
        related_information=related or None,
    )


def _said(span: Span) -> str:
    return re.sub(r"\s+", " ", span.source.line(span.line)[span.column - 1 : span.end - 1]) or "here"


def _uri(document: TextDocument, span: Span) -> str:
    if _name(document.uri) == span.source.name:
        return document.uri
    return from_fs_path(str(Path(span.source.name).absolute())) or document.uri


def _place(document: TextDocument, span: Span | None) -> lsp.Range:
    if span is None:
        return _range(document, 0, 0, 0, 0)
    end = max(span.end, span.column) - 1
    if span.end - span.column == 1 and (word := _WORD.match(span.source.line(span.line), span.column - 1)):
        end = word.end()  # what takes several lines, or is an argument of Python, is placed where it begins
    return _range(document, span.line - 1, span.column - 1, span.line - 1, end)


def _range(document: TextDocument, line: int, start: int, end_line: int, end: int) -> lsp.Range:
    """A range of the text, counted in characters, as the editor counts."""
    place = lsp.Range(lsp.Position(line, start), lsp.Position(end_line, end))
    return document.position_codec.range_to_client_units(document.lines, place)


def _actions(opened: Opened, document: TextDocument, params: lsp.CodeActionParams) -> Iterator[lsp.CodeAction]:
    only = params.context.only or []
    uri = params.text_document.uri
    if not only or any(_text(kind).startswith("quickfix") for kind in only):
        for repair in actions.repairs(opened, params.range.start.line, params.range.end.line):
            about = [one for one in params.context.diagnostics if repair.finding and one.code == repair.finding.code]
            yield _action(document, uri, repair, lsp.CodeActionKind.QuickFix, about)
    if (not only or any(FIX_ALL.startswith(_text(kind)) for kind in only)) and (whole := actions.fix_all(opened)):
        yield _action(document, uri, whole, FIX_ALL, [])


def _text(kind: lsp.CodeActionKind | str) -> str:
    return kind.value if isinstance(kind, lsp.CodeActionKind) else kind


def _action(
    document: TextDocument,
    uri: str,
    repair: actions.Repair,
    kind: lsp.CodeActionKind | str,
    about: list[lsp.Diagnostic],
) -> lsp.CodeAction:
    first, last = (_position(document.source, at) for at in (repair.edit.start, repair.edit.end))
    edit = lsp.TextEdit(_range(document, *first, *last), repair.edit.text)
    return lsp.CodeAction(
        title=repair.title, kind=kind, diagnostics=about or None, edit=lsp.WorkspaceEdit(changes={uri: [edit]})
    )


def _position(text: str, at: int) -> tuple[int, int]:
    line = text.count("\n", 0, at)
    return line, at - (text.rfind("\n", 0, at) + 1)
