"""Structured output: method selection, output schema, validation retries; once for every framework, without I/O."""
