"""OpenAI's chat completions and what providers make of them."""
