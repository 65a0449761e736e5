"""The types that all other packages share: messages, requests, events, replies, errors. It imports no other package."""
