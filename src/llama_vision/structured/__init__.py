"""Structured output: choosing the method, the schema, asking until it validates."""
