"""Sending traces by OTLP over HTTP. Needs the extra `runfold[traces]`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger.errors import ConfigurationError, InvalidValue, LedgerError
from runfold.ledger.validation import check_text
from runfold.projections.telemetry.trace import Span
from runfold.version import __version__

TIMEOUT_SECONDS: Final = 10


class NotExported(LedgerError):
    """The receiver did not take the spans; they may be sent again, their ids are the same."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"{url} did not take the trace: {reason}")


class Sender:
    """Sends spans to one receiver, such as `http://localhost:4318`.

    `/v1/traces` is added to a URL without a path.
    """

    def __init__(self, url: str, *, service: str) -> None:
        """Send nothing yet. Raises InvalidValue, or ConfigurationError without the extra."""
        if not url.startswith(("http://", "https://")):
            raise InvalidValue("OTLP URL", url, "must begin with http:// or https://")
        check_text("service", service)
        self.url = url if url.split("://", 1)[1].count("/") else f"{url}/v1/traces"
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
        except ImportError as error:
            raise ConfigurationError(
                "traces are sent with OpenTelemetry: install runfold[traces]"
            ) from error
        self._exporter = OTLPSpanExporter(endpoint=self.url, timeout=TIMEOUT_SECONDS)
        self._resource = Resource.create({"service.name": service})

    def send(self, spans: Sequence[Span]) -> None:
        """Send spans that are over; blocks. Raises NotExported."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        ended = [self._readable(span) for span in spans if span.end is not None]
        if ended and self._exporter.export(ended) is not SpanExportResult.SUCCESS:
            raise NotExported(self.url, "no answer, or an error that trying again did not mend")

    def close(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # its own gap

    def _readable(self, span: Span) -> Any:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

        def context(trace_id: int, span_id: int) -> SpanContext:
            return SpanContext(
                trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
            )

        code = {None: StatusCode.UNSET, False: StatusCode.OK, True: StatusCode.ERROR}[span.failed]
        return ReadableSpan(
            span.name,
            context=context(span.trace_id, span.span_id),
            parent=None if span.parent_id is None else context(span.trace_id, span.parent_id),
            resource=self._resource,
            attributes=span.attributes,
            events=[
                Event(mark.name, dict(mark.attributes), _nanoseconds(mark.at))
                for mark in span.marks
            ],
            links=[] if span.link is None else [Link(context(span.link.int, root_id(span.link)))],
            status=Status(code, span.error),
            start_time=_nanoseconds(span.start),
            end_time=_nanoseconds(span.end),
            instrumentation_scope=InstrumentationScope("runfold", __version__),
        )


def root_id(run_id: UUID) -> int:
    """Return an id for the root span of another run's trace; a link needs one, any but zero."""
    return run_id.int & (2**64 - 1) or 1


def _nanoseconds(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1_000_000) * 1_000
