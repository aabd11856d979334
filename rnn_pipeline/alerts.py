"""Telling a person: alerts to the log, by e-mail, to a webhook, and by ways of one's own.

An alert has a key, and a key is told once a day by each way. What cannot be delivered is written
down for ``rnn-pipeline doctor``, tried again with the next alert, and never fails what raised it.
Passwords and tokens come from the environment alone (``settings.SECRETS``).
"""

from __future__ import annotations

import json
import logging
import os
import smtplib
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rnn_pipeline.settings import PREFIX, AlertSpec, OwnCodeError, load_own_code
from rnn_pipeline.warehouse.files import write_atomically

#: Seconds that a mail server or a webhook may take.
_PATIENCE = 10.0

#: Days after which a told key is forgotten.
_REMEMBERED = timedelta(days=7)

_log = logging.getLogger("rnn_pipeline.alerts")


@dataclass(frozen=True)
class Alert:
    """One thing that a person should know.

    Attributes:
        key: what it is about, such as "bars" or "run daily"; the same key is told once a day.
        severity: "error" needs a hand before the open, "warning" a look.
        title: one line.
        text: what happened, in sentences.
        command: what mends it; empty where only thought does.
    """

    key: str
    severity: Literal["warning", "error"]
    title: str
    text: str = ""
    command: str = ""

    def __str__(self) -> str:
        mend = f" Run: {self.command}" if self.command else ""
        return f"{self.severity}: {self.title}. {self.text}".rstrip() + mend


#: A way to deliver: takes all that is new at once, raises where it could not be delivered. A way of
#: one's own is a function of this kind, named in the settings (``alerts.hooks``).
Hook = Callable[[Sequence[Alert]], None]


@dataclass(frozen=True)
class Delivery:
    """What became of alerts.

    Attributes:
        told: hook -> keys it delivered now.
        failed: hook -> why it could not.
    """

    told: dict[str, list[str]]
    failed: dict[str, str]


def deliver(
    alerts: Sequence[Alert], hooks: Mapping[str, Hook], memory: Path, now: datetime
) -> Delivery:
    """Tell each hook what it has not told today. Never raises for a hook's sake.

    Args:
        alerts: in the order in which they are told.
        hooks: by name, see :func:`hooks_of`.
        memory: a file of who was told what on which day; an unreadable one is begun anew.
        now: the day is its date.
    """
    known = recall(memory)
    told: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    for name, hook in hooks.items():
        days = known["told"].setdefault(name, {})
        new = [alert for alert in alerts if days.get(alert.key) != now.date().isoformat()]
        if not new:
            continue
        try:
            hook(new)
        except Exception as error:
            # The message of an error may quote an address with a token in it; its type does not.
            told_safely = isinstance(error, OwnCodeError)
            failed[name] = str(error) if told_safely else type(error).__name__
            known["failed"][name] = {"at": now.isoformat(), "error": failed[name]}
            _log.warning("alerts could not be delivered by %s: %s", name, failed[name])
            continue
        told[name] = [alert.key for alert in new]
        days |= dict.fromkeys(told[name], now.date().isoformat())
        known["failed"].pop(name, None)
    if told or failed:
        oldest = (now.date() - _REMEMBERED).isoformat()
        for name, days in known["told"].items():
            known["told"][name] = {key: day for key, day in days.items() if day >= oldest}
        try:
            write_atomically(memory, json.dumps(known, indent=1).encode())
        except OSError as error:
            _log.warning("who was told what could not be written to %s: %s", memory, error)
    return Delivery(told, failed)


def recall(memory: Path) -> dict[str, Any]:
    """``told`` (hook -> key -> day) and ``failed`` (hook -> at, error) of what was delivered."""
    try:
        known = json.loads(memory.read_text())
        told = {hook: dict(days) for hook, days in known["told"].items()}
        return {"told": told, "failed": dict(known["failed"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"told": {}, "failed": {}}


def hooks_of(spec: AlertSpec, environment: Mapping[str, str] = os.environ) -> dict[str, Hook]:
    """The hooks that the settings ask for: log always, email and webhook where they have a goal.

    Those of one's own are named as the settings name them.
    """
    hooks: dict[str, Hook] = {"log": _to_log}
    if spec.email_to:
        hooks["email"] = lambda alerts: _to_email(alerts, spec, environment)
    if spec.webhook is not None:
        hooks["webhook"] = lambda alerts: _to_webhook(alerts, spec, environment)
    return hooks | {path: partial(_to_own, path) for path in spec.hooks}


def _to_own(path: str, alerts: Sequence[Alert]) -> None:
    # Loaded here and not before: that it cannot be is something to be told by the other ways.
    load_own_code(path)(alerts)


def _to_log(alerts: Sequence[Alert]) -> None:
    for alert in alerts:
        _log.log(logging.ERROR if alert.severity == "error" else logging.WARNING, "%s", alert)


def _to_email(alerts: Sequence[Alert], spec: AlertSpec, environment: Mapping[str, str]) -> None:
    message = EmailMessage()
    message["Subject"] = _headline(alerts)
    message["From"] = spec.email_from or spec.email_to[0]
    message["To"] = ", ".join(spec.email_to)
    message.set_content("\n\n".join(map(str, alerts)) + "\n")
    user = environment.get(f"{PREFIX}SMTP_USER")
    with smtplib.SMTP(spec.smtp_host, spec.smtp_port, timeout=_PATIENCE) as server:
        if spec.smtp_starttls:
            server.starttls(context=ssl.create_default_context())
        if user:
            server.login(user, environment.get(f"{PREFIX}SMTP_PASSWORD", ""))
        server.send_message(message)


def _to_webhook(alerts: Sequence[Alert], spec: AlertSpec, environment: Mapping[str, str]) -> None:
    from curl_cffi import requests

    assert spec.webhook is not None
    token = environment.get(f"{PREFIX}WEBHOOK_TOKEN")
    answer = requests.post(
        spec.webhook.get_secret_value(),
        # Chat programs show "text"; others read the list.
        json={
            "text": "\n".join([_headline(alerts), *map(str, alerts)]),
            "alerts": [asdict(alert) for alert in alerts],
        },
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=_PATIENCE,
    )
    answer.raise_for_status()


def _headline(alerts: Sequence[Alert]) -> str:
    worst = "error" if any(alert.severity == "error" for alert in alerts) else "warning"
    others = f" and {len(alerts) - 1} more" if len(alerts) > 1 else ""
    return f"[rnn-pipeline] {worst}: {alerts[0].title}{others}"
