"""Makes a request fit for its provider: checked, with images ready, tools prompted and messages in order."""
