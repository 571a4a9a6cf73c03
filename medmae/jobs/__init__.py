"""Runs on other computers: targets, launching, following, stopping, resuming, fetching. Never imports torch."""
