"""The gateway: one run served over HTTP, who may take part in it, and its certificates."""
