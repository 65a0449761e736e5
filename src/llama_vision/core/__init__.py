"""The vocabulary every other room speaks: messages, requests, events, replies, errors. It imports nothing of ours."""
