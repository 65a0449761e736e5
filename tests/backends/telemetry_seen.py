"""An OpenTelemetry SDK that keeps in memory what it sees."""

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def set_up(monkeypatch):
    """Set an SDK up for one test, without the API's rule that this happens once in a process."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(trace, "get_tracer", tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    monkeypatch.setattr(metrics, "get_meter", meters.get_meter)
    return Seen(exporter, reader, meters)


class Seen:
    def __init__(self, exporter, reader, meters):
        self._exporter, self._reader, self.meters = exporter, reader, meters

    def spans(self):
        return self._exporter.get_finished_spans()

    def span(self):
        (span,) = self.spans()
        return span

    def metrics(self):
        """The data points by the metric's name."""
        return {metric.name: metric.data.data_points for metric in self.instruments()}

    def instruments(self):
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return [metric for scope in scopes for metric in scope.metrics]
