"""Every setting: its value, its default, and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rnn_pipeline.cli.errors import plain_errors
from rnn_pipeline.settings import NetworkSpec, Settings, load_settings

#: Name that stands for any in a key, where settings are grouped under names of the user's.
_ANY = "<name>"


def described(
    spec: type[BaseModel] = Settings, given: BaseModel | None = None, prefix: str = ""
) -> Iterator[tuple[str, object, str]]:
    """Key, default and description of every setting, in the order in which they are declared.

    Args:
        spec: the model.
        given: an instance of it whose values are the defaults, where its parent has its own.
        prefix: of the keys.
    """
    for name, field in spec.model_fields.items():
        value = getattr(given, name) if given is not None else field.get_default()
        if isinstance(value, BaseModel):
            yield from described(type(value), value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            yield from described(NetworkSpec, None, f"{prefix}{name}.{_ANY}.")
        else:
            yield f"{prefix}{name}", value, _meaning(field)


def _meaning(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    meaning = field.description or ""
    # A description that goes through the choices needs no list of them.
    told = any(f"{choice}:" in meaning for choice in choices[:2])
    options = "" if told else " or ".join(str(choice) for choice in choices)
    return ": ".join(part for part in (options, meaning) if part)


def written(value: object) -> str:
    """A value as TOML has it; empty where there is none."""
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, SecretStr):
        return "(hidden)"
    if isinstance(value, tuple):
        return f"[{', '.join(written(part) for part in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def reference() -> str:
    """The table of docs/settings.md."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, meaning in described():
        shown = f"`{written(default)}`" if written(default) else ""
        lines.append(f"| `{key}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


@click.command("settings", epilog="Example: RNN_PIPELINE_FOLDS__TEST_SIZE=60 rnn-pipeline settings")
@click.option("--json", "as_json", is_flag=True, help="the values as JSON, secrets left out")
@click.option("--reference", "table", is_flag=True, help="the table of docs/settings.md")
def show_settings(as_json: bool, table: bool) -> None:
    """Show the settings in force, and which of them are not the defaults."""
    with plain_errors():
        if table:
            click.echo(reference(), nl=False)
            return
        settings = load_settings()
    if as_json:
        click.echo(json.dumps(settings.model_dump(mode="json"), indent=1))
        return
    for key, default, _ in described():
        if _ANY in key:
            continue
        value = _value(settings, key)
        changed = "" if value == default else f"  # not the default, {written(default) or 'empty'}"
        click.echo(f"{key} = {written(value)}{changed}")
    for name, network in settings.model.networks.items():
        for key in type(network).model_fields:
            click.echo(f"model.networks.{name}.{key} = {written(getattr(network, key))}")
