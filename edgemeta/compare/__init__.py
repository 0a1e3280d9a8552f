"""Runs side by side: what is compared, what was found, and the tables and the page that say it."""
