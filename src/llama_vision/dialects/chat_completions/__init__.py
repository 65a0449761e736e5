"""OpenAI's chat completions, with the variations of other providers."""
