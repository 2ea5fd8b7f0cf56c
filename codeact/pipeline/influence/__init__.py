"""The stage that measures influence, its checks, and the page about it."""
