"""Bodies of requests that may hold an image: JSON, or the form of OpenAI's client."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from runtime.serving.errors import RequestError

_Asked = TypeVar("_Asked", bound=BaseModel)


async def form_of(request: Request, images: Iterable[str]) -> tuple[dict[str, str], list[bytes]]:
    """The fields of a form, each once, and the files under the names ``images``.

    Raises:
        RequestError: a field is there twice, or a file under another name.
    """
    values: dict[str, str] = {}
    files = []
    async with request.form(max_files=2, max_fields=40) as form:
        for name, value in form.multi_items():
            if isinstance(value, str):
                if name in values:
                    raise RequestError(400, f"{name} is there twice", param=name)
                values[name] = value
            elif name in images:
                files.append(await value.read())
            else:
                raise RequestError(400, f"{name} cannot be used here", param=name)
    return values, files


def asked_in_form(model: type[_Asked], values: dict[str, str]) -> _Asked:
    """What the fields of a form ask for.

    Raises:
        RequestError: a field is unknown, missing or wrong.
    """
    told: dict[str, Any] = values
    if "lora" in values:
        try:
            told = values | {"lora": json.loads(values["lora"])}
        except (ValueError, RecursionError):
            raise RequestError(400, "lora: no JSON", param="lora") from None
    try:
        return model.model_validate(told, strict=False)
    except ValidationError as error:
        raise invalid(error.errors()) from None


async def json_of(request: Request) -> dict[str, Any]:
    """The object that a body of JSON is.

    Raises:
        RequestError: it is none.
    """
    try:
        values = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is no JSON") from None
    if not isinstance(values, dict):
        raise RequestError(400, "the body: input should be an object")
    return values


def asked_in_json(model: type[_Asked], values: dict[str, Any]) -> _Asked:
    """What an object asks for.

    Raises:
        RequestError: a field is unknown, missing or wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error.errors()) from None


def image_in_url(url: Any, param: str) -> bytes:
    """The image that a data URL holds; nothing is fetched from elsewhere.

    Raises:
        RequestError: it is no data URL of an image in base64.
    """
    head, comma, data = str(url).partition(",")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise RequestError(400, "only a data URL, data:image/png;base64,..., or a file in a form", param=param)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(400, "no base64", param=param) from None


def invalid(errors: Any) -> RequestError:
    """The first of pydantic's errors, as ours."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid":
        return RequestError(400, "the body is no JSON")
    if first["type"] == "extra_forbidden":
        return RequestError(400, f"unknown field {place}", param=place, code="unknown_parameter")
    return RequestError(400, f"{place or 'the body'}: {first['msg'].lower()}", param=place or None)
