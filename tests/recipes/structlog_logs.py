"""structlog: this package's log lines and calls as JSON. They hold no secret to begin with.

Its own lines go to ``logging``: attempts at DEBUG, a last attempt and an outage at WARNING.
"""

import logging

import structlog

from deepcall_async import CallEnded, Observer

SECRETS = {"token", "ssid", "password"}


def hide_secrets(logger: object, method: str, event: dict) -> dict:
    """What your own code may log by mistake: values under such names."""
    return {name: "***" if name in SECRETS else value for name, value in event.items()}


def configure(level: int = logging.INFO) -> None:
    shared = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, hide_secrets]
    formatter = structlog.stdlib.ProcessorFormatter
    last = [formatter.remove_processors_meta, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(processors=last, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    structlog.configure(
        processors=[*shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


class CallLog(Observer):
    """Use it as ``DeepCall(observers=[CallLog()])``."""

    def call_ended(self, event: CallEnded) -> None:
        seconds = round(event.ended - event.started, 3)
        kind = type(event.error).__name__ if event.error else None
        log = structlog.get_logger("calls").bind(attempts=event.attempts, seconds=seconds)
        log.info(event.endpoint, error=kind, code=event.code)
