"""The types that all other packages share: messages, requests, events, replies, errors. It imports nothing of ours."""
