"""The tracer: a process of its own that sends spans to an OpenTelemetry collector.

Started only with ``--otlp-endpoint``. Whatever the collector does, nobody waits for this process.
"""
