"""Cloudflare Workers AI's own format."""
